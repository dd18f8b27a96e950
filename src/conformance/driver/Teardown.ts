/** What was made goes, however it ends: with its scope, before it was whole, after its worker's death. */
import { Deferred, Effect, Fiber } from "effect"
import type { Sandbox } from "../../layers/sandbox/Sandbox.ts"
import { define, expect, same } from "../Case.ts"
import { ConformanceDriver, ConformanceHost } from "../ConformanceHost.ts"
import { nothingLeft } from "../Gone.ts"
import { disk, provision, run } from "../Places.ts"
import { type Command, slowly } from "../Runs.ts"

/** Five processes, each a session of its own, that hear no signal they can be deaf to. */
const hiding = `
import os, signal, time
for s in range(1, 32):
    try: signal.signal(s, signal.SIG_IGN)
    except (OSError, ValueError): pass
for _ in range(5):
    if os.fork() == 0:
        os.setsid()
        time.sleep(1000)
print('up', flush=True)
time.sleep(1000)`

/** Runs on in the scope; comes back when it has said that it is up. */
const upAndRunning = Effect.fnUntraced(function*(sandbox: Sandbox, command: Command) {
  const isUp = yield* Deferred.make<void>()
  const onOutput = () => Effect.asVoid(Deferred.succeed(isUp, undefined))
  const running = yield* Effect.forkScoped(run(sandbox, command, { onOutput }))
  yield* Effect.raceFirst(Deferred.await(isUp), Effect.asVoid(Fiber.join(running)))
  yield* expect("the program to say that it is up", Deferred.isDoneUnsafe(isUp), "its end")
})

export const teardown = [
  define(
    "its scope closed, nothing of a sandbox is left: no process, however it hides, no file, no row",
    [],
    Effect.gen(function*() {
      yield* Effect.scoped(Effect.gen(function*() {
        const sandbox = yield* provision
        yield* run(
          sandbox,
          "mkdir -p a/b/c; echo x > a/b/c/d; mkfifo a/pipe; ln -s / a/root; chmod 500 a/b; chmod 000 a/b/c"
        )
        yield* upAndRunning(sandbox, { python: hiding })
      }))
      yield* nothingLeft
    })
  ),

  define(
    "while one is there it is known to be: leftovers are not blind",
    [],
    Effect.gen(function*() {
      const { leftovers } = yield* ConformanceHost
      yield* Effect.scoped(Effect.gen(function*() {
        yield* provision
        yield* expect("a trace of the sandbox", (yield* leftovers).length > 0, "none")
      }))
      yield* nothingLeft
    })
  ),

  define(
    "many at once are each their own, and go",
    [],
    Effect.gen(function*() {
      yield* Effect.scoped(Effect.gen(function*() {
        const numbers = Array.from({ length: 8 }, (_, index) => index)
        const all = yield* Effect.forEach(numbers, () => provision, { concurrency: "unbounded" })
        yield* same("ids", new Set(all.map(({ id }) => id)).size, numbers.length)
        yield* same("places", new Set(all.map(({ place }) => place)).size, numbers.length)
        const said = yield* Effect.forEach(
          all,
          (sandbox, index) => run(sandbox, `ls -A; echo ${index} > file; sleep 0.1; cat file`),
          { concurrency: "unbounded" }
        )
        yield* same("what each says", said.map(({ stdout }) => stdout), numbers.map((index) => `${index}\n`))
      }))
      yield* nothingLeft
    })
  ),

  define(
    "one that is not wanted any more while it is being made leaves nothing",
    [],
    Effect.gen(function*() {
      for (const afterMs of [0, 1, 2, 4, 6, 8, 11, 15, 25]) {
        const making = yield* Effect.forkChild(Effect.scoped(provision), { startImmediately: true })
        yield* Effect.sleep(afterMs)
        yield* Fiber.interrupt(making)
      }
      yield* nothingLeft
    })
  ),

  define(
    "one that cannot be made leaves nothing, and says where it failed and what to do",
    [],
    Effect.gen(function*() {
      const driver = yield* ConformanceDriver
      const { unmakeable } = yield* ConformanceHost
      const result = yield* Effect.result(Effect.scoped(driver.provision(unmakeable, yield* disk)))
      const failure = result._tag === "Failure" ? result.failure : undefined
      const isTold = failure?._tag === "ProvisionFailed" && failure.driver === driver.name && failure.reason !== "" &&
        failure.remedy !== ""
      yield* expect("ProvisionFailed of this driver, with reason and remedy", isTold, result)
      yield* nothingLeft
    })
  ),

  define(
    "a scope that is closed while the program runs does not wait for it",
    [],
    Effect.gen(function*() {
      const closing = Effect.scoped(Effect.gen(function*() {
        const sandbox = yield* provision
        yield* upAndRunning(sandbox, "trap '' TERM HUP INT; echo up; while :; do sleep 0.1; done")
      }))
      const ended = yield* Effect.timeoutOption(closing, yield* slowly(15_000))
      yield* same("its end within 15 seconds", ended._tag, "Some")
      yield* nothingLeft
    })
  ),

  define(
    "reap removes all that a dead worker's row names, says so only then, and may be asked again",
    [],
    Effect.gen(function*() {
      const driver = yield* ConformanceDriver
      const { leftovers, orphan, slowness } = yield* ConformanceHost
      const row = yield* orphan
      // False means: not yet, ask again in the next round.
      let isGone = false
      for (let round = 0; round < 100 * slowness && !isGone; round++) {
        isGone = yield* driver.reap(row)
        if (!isGone) yield* Effect.sleep("100 millis")
      }
      yield* same("reap", isGone, true)
      const left = (yield* leftovers).filter((name) => name.includes(row.id) && !name.startsWith("row "))
      yield* same("what is left of it when reap has said true", left, [])
      yield* same("reap of what is gone", yield* driver.reap(row), true)
    })
  ),

  define(
    "reap of one worker's row leaves the living alone",
    [],
    Effect.scoped(Effect.gen(function*() {
      const driver = yield* ConformanceDriver
      const { orphan } = yield* ConformanceHost
      const sandbox = yield* provision
      const row = yield* orphan
      yield* Effect.repeat(Effect.andThen(Effect.sleep("100 millis"), driver.reap(row)), { until: (gone) => gone })
      yield* same("a phase of the living", (yield* run(sandbox, "echo well")).stdout, "well\n")
    }))
  ),

  define(
    "check changes nothing, says the same again, and has a remedy for each gap",
    [],
    Effect.gen(function*() {
      const { check } = yield* ConformanceDriver
      const { leftovers } = yield* ConformanceHost
      const before = yield* leftovers
      const [first, second] = [yield* check, yield* check]
      yield* same("leftovers after it", yield* leftovers, before)
      yield* same(
        "what it says again",
        second.map(({ name, status }) => [name, status]),
        first.map(({ name, status }) => [name, status])
      )
      const silent = first.filter(({ remedy, status }) => status !== "ok" && (remedy ?? "") === "")
      yield* same("gaps without a remedy", silent, [])
    })
  )
]
