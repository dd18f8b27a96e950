/** Who asks for an end gets one: TERM first, KILL after the grace, whenever it is asked. */
import { Deferred, Effect, Fiber } from "effect"
import { monotonicMs } from "../../layers/Now.ts"
import { Outcome } from "../../schemas/Outcome.ts"
import { between, define, expect, same } from "../Case.ts"
import { nothingLeft } from "../Gone.ts"
import { follow, held, run, slowly, start, stopAt } from "../Runs.ts"

const stopped = Outcome.cases.Stopped.make({ reason: "enough" })

/** Says each TERM it hears. */
const hearing = (then: string) => `trap 'echo term; ${then}' TERM; echo up; while :; do sleep 0.05; done`

export const stops = [
  define(
    "Stopped before it has a sandbox: nothing of it runs",
    [],
    Effect.scoped(Effect.gen(function*() {
      const under = yield* start({ run: "echo ran; sleep 100" })
      yield* under.stop({ reason: "enough", graceMs: 0 })
      const { outcome } = yield* follow(under)
      yield* same("the outcome", outcome, stopped)
    }))
  ),

  define(
    "Stopped while it compiles: it is not run",
    [],
    Effect.gen(function*() {
      const ran = yield* run({ compile: "echo up; sleep 100", run: "echo ran", onEvent: stopAt("up", 200) })
      yield* same("the outcome", ran.outcome, stopped)
      yield* same("stdout", ran.stdout.toString(), "up\n")
      yield* same("the phases", ran.usage.phases.map(({ phase }) => phase), ["compile"])
    })
  ),

  define(
    "Stopped by TERM, which the program may use to leave in order",
    [],
    Effect.gen(function*() {
      const graceMs = yield* slowly(20_000)
      const ran = yield* run({ run: hearing("exit 5"), onEvent: stopAt("up", graceMs) })
      yield* same("the outcome", ran.outcome, stopped)
      yield* same("stdout", ran.stdout.toString(), "up\nterm\n")
      yield* expect("an end long before the grace's", ran.last.wallMicros < graceMs * 1000, ran.last)
    })
  ),

  define(
    "Stopped by KILL after the grace, where TERM is ignored: one TERM, however often it is asked",
    [],
    Effect.gen(function*() {
      const graceMs = yield* slowly(500)
      const ran = yield* run({ run: hearing(":"), onEvent: stopAt("up", graceMs, 3) })
      yield* same("the outcome", ran.outcome, stopped)
      yield* same("stdout", ran.stdout.toString(), "up\nterm\n")
      yield* between("elapsed microseconds", ran.last.wallMicros, graceMs * 950, (yield* slowly(10_000)) * 1000)
    })
  ),

  define(
    "a second request changes neither the reason nor the grace of the first",
    [],
    Effect.gen(function*() {
      const graceMs = yield* slowly(600)
      const ran = yield* run({
        run: hearing(":"),
        onEvent: (event, under) =>
          event._tag === "Output" && Buffer.from(event.bytes).includes("up")
            ? Effect.andThen(under.stop({ reason: "enough", graceMs }), under.stop({ reason: "other", graceMs: 0 }))
            : Effect.void
      })
      yield* same("the outcome", ran.outcome, stopped)
      yield* same("stdout", ran.stdout.toString(), "up\nterm\n")
      yield* between("elapsed microseconds", ran.last.wallMicros, graceMs * 950)
    })
  ),

  define(
    "Stopped without a grace: KILL at once, no TERM",
    [],
    Effect.gen(function*() {
      const ran = yield* run({ run: hearing("exit 0"), onEvent: stopAt("up", 0) })
      yield* same("the outcome", ran.outcome, stopped)
      yield* same("stdout", ran.stdout.toString(), "up\n")
    })
  ),

  define(
    "stop returns at once, and what is over stays as it was",
    [],
    Effect.scoped(Effect.gen(function*() {
      const under = yield* start({ run: "trap '' TERM; echo up; sleep 100" })
      const graceMs = yield* slowly(3000)
      let tookMs = Number.POSITIVE_INFINITY
      const { outcome } = yield* follow(under, (event) =>
        event._tag === "Output"
          ? Effect.gen(function*() {
            const before = yield* monotonicMs
            yield* under.stop({ reason: "enough", graceMs })
            tookMs = (yield* monotonicMs) - before
          })
          : Effect.void)
      yield* same("the outcome", outcome, stopped)
      yield* expect(`stop to return before the grace of ${graceMs} ms`, tookMs < graceMs / 2, tookMs)
      yield* under.stop({ reason: "late", graceMs: 0 })
      const done = yield* start({ run: "exit 7" })
      const ran = yield* follow(done)
      yield* done.stop({ reason: "late", graceMs: 0 })
      yield* same("the outcome", ran.outcome, Outcome.cases.Exited.make({ phase: "run", code: 7 }))
    }))
  ),

  define(
    "closing the scope midway ends and removes everything",
    [],
    Effect.gen(function*() {
      const wanted = { run: "(setsid sleep 1000 &); trap '' TERM; echo up; while :; do sleep 0.1; done" }
      // Before its sandbox, about when that is ready, and while the program runs.
      for (const afterMs of [0, yield* slowly(15), yield* slowly(40)]) {
        const running = yield* Effect.forkChild(Effect.scoped(held(wanted)), { startImmediately: true })
        yield* Effect.sleep(afterMs)
        yield* Fiber.interrupt(running)
      }
      yield* Effect.scoped(Effect.gen(function*() {
        const under = yield* start(wanted)
        const isUp = yield* Deferred.make<void>()
        yield* Effect.forkScoped(
          follow(under, (event) => event._tag === "Output" ? Deferred.succeed(isUp, undefined) : Effect.void)
        )
        yield* Deferred.await(isUp)
      }))
      yield* nothingLeft
    })
  ),

  define(
    "a scope whose events nobody takes closes all the same",
    [],
    Effect.gen(function*() {
      yield* Effect.scoped(Effect.gen(function*() {
        yield* start({ run: "while :; do echo 0123456789012345678901234567890123456789; done" })
        yield* Effect.sleep(yield* slowly(300))
      }))
      yield* nothingLeft
    })
  ),

  define(
    "when runs are over and their scopes closed, nothing is left",
    [],
    Effect.gen(function*() {
      const { stdout } = yield* run({ run: "(setsid sleep 1000 &); mkdir -p a/b; echo x > a/b/c; cat a/b/c" })
      yield* same("stdout", stdout.toString(), "x\n")
      yield* run({ run: { argv: ["no-such-program"] } })
      yield* nothingLeft
    })
  )
]
