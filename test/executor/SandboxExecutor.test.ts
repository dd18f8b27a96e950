import { assert, describe, it } from "@effect/vitest"
import { type Cause, Effect, Exit, Fiber, Layer, Queue, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { disorderOf } from "../../src/conformance/Runs.ts"
import { Executor, type RunEvent } from "../../src/layers/executor/Executor.ts"
import * as SandboxExecutor from "../../src/layers/executor/SandboxExecutor.ts"
import {
  type PhaseEvent,
  ProvisionFailed,
  type Sandbox,
  SandboxLost,
  SandboxRefused
} from "../../src/layers/sandbox/Sandbox.ts"
import { Sandboxes } from "../../src/layers/sandbox/Sandboxes.ts"
import { SandboxId } from "../../src/schemas/Ids.ts"
import { type Limits, standardDefaults } from "../../src/schemas/Limits.ts"
import { type Outcome, Outcome as Outcomes } from "../../src/schemas/Outcome.ts"
import { type Phase, type Source, WorkPath } from "../../src/schemas/Program.ts"
import { standardClass } from "../../src/schemas/WorkerConfig.ts"
import { makeJob } from "../actors/World.ts"

type Ending = Extract<PhaseEvent, { _tag: "Ended" }>

/** A sandbox whose phases end when the test says so. */
interface Fake {
  readonly signals: Array<string>
  cpuMicros: number
  killed: boolean
  /** Its guest answers nothing. */
  isDeaf: boolean
  /** It is lost when an artefact is asked for; how often it was. */
  isGone: boolean
  asked: number
  alive: number
  /** What the next phase does; by default it waits for a signal it dies of. */
  phase: (phase: Phase) => Stream.Stream<PhaseEvent, SandboxLost | SandboxRefused>
  obeys: ReadonlyArray<number>
  readonly die: Queue.Queue<number, Cause.Done>
}

const ended = (phase: Phase, exit: Ending["exit"], oomKills = 0): PhaseEvent => ({
  _tag: "Ended",
  exit,
  usage: { phase: phase.name, wallMicros: 1, oomKills }
})

const exits = (code: number) => (phase: Phase) =>
  Stream.make<ReadonlyArray<PhaseEvent>>({ _tag: "Started" }, ended(phase, { _tag: "Exited", code }))

const bytes = (count: number): PhaseEvent => ({ _tag: "Output", stream: "stdout", bytes: new Uint8Array(count) })

const makeFake = Effect.gen(function*() {
  const die = yield* Queue.unbounded<number, Cause.Done>()
  const fake: Fake = {
    signals: [],
    cpuMicros: 0,
    killed: false,
    isDeaf: false,
    isGone: false,
    asked: 0,
    alive: 0,
    obeys: [9],
    die,
    phase: (phase) =>
      Stream.concat(
        Stream.make<ReadonlyArray<PhaseEvent>>({ _tag: "Started" }),
        Stream.fromEffect(Effect.map(Queue.take(die), (signal) => ended(phase, { _tag: "Signalled", signal }))).pipe(
          Stream.catch(() => Stream.fail(new SandboxLost({ driver: "fake", reason: "killed", remedy: "none" })))
        )
      )
  }
  return fake
})

const sandboxOf = (fake: Fake): Sandbox => ({
  id: SandboxId.make("fake"),
  driver: "oci",
  place: "/fake",
  put: (files) =>
    files.some(({ path }) => path === "full")
      ? Effect.fail(new SandboxRefused({ operation: "put", errno: 28, reason: "no space left" }))
      : Effect.void,
  run: (phase) => fake.phase(phase),
  signal: (signal, scope) =>
    Effect.suspend(() => {
      fake.signals.push(`${signal} ${scope}`)
      if (fake.isDeaf) return Effect.never
      if (fake.obeys.includes(signal)) Queue.offerUnsafe(fake.die, signal)
      return Effect.void
    }),
  kill: Effect.sync(() => {
    fake.killed = true
    Queue.endUnsafe(fake.die)
  }),
  measure: Effect.sync(() => ({ cpuMicros: fake.cpuMicros })),
  get: (path) =>
    Effect.suspend((): Effect.Effect<Uint8Array, SandboxLost | SandboxRefused> => {
      fake.asked += 1
      if (fake.isGone) return Effect.fail(new SandboxLost({ driver: "oci", reason: "it ended", remedy: "none" }))
      return path === "there"
        ? Effect.succeed(new TextEncoder().encode("artefact"))
        : Effect.fail(new SandboxRefused({ operation: "get", errno: 2, reason: "no such file" }))
    })
})

interface Options {
  /** Its class has machines that take one source file; the program is one. */
  readonly agent?: { readonly source?: Source; readonly does: NonNullable<Sandbox["source"]> }
  readonly limits?: Partial<Limits>
  readonly phases?: ReadonlyArray<"compile" | "run">
  readonly files?: ReadonlyArray<string>
  readonly artefacts?: ReadonlyArray<string>
  readonly take?: Sandboxes["Service"]["take"]
}

/** Starts a run on the fake; its events, its stop, and its scope. */
const start = Effect.fnUntraced(function*(fake: Fake, options: Options = {}) {
  const scope = yield* Scope.make()
  const take: Sandboxes["Service"]["take"] = options.take ?? (() =>
    Effect.acquireRelease(
      Effect.sync(() => {
        fake.alive += 1
        return options.agent === undefined ? sandboxOf(fake) : { ...sandboxOf(fake), source: options.agent.does }
      }),
      () => Effect.sync(() => fake.alive -= 1)
    ))
  const layer = SandboxExecutor.layer.pipe(
    Layer.provide(Layer.succeed(Sandboxes, Sandboxes.of({ take, accepts: () => Effect.void })))
  )
  const executor = yield* Effect.provideContext(Executor, yield* Layer.build(layer))
  const limits = { ...standardDefaults, ...options.limits }
  const [first = "run", ...others] = options.phases ?? ["run"]
  const phase = (name: "compile" | "run"): Phase => ({ name, argv: ["x"], env: {}, stdin: new Uint8Array(), limits })
  const run = yield* executor.start({
    job: makeJob("a"),
    attempt: 1,
    class: {
      ...standardClass("oci", "oci"),
      ...(options.agent === undefined ? {} : { machine: { agent: "codebench" } })
    },
    program: {
      ...(options.agent?.source === undefined ? {} : { source: options.agent.source }),
      files: (options.files ?? []).map((path) => ({
        path: WorkPath.make(path),
        content: new Uint8Array(),
        executable: false
      })),
      phases: [phase(first), ...others.map(phase)],
      artefacts: (options.artefacts ?? []).map((path) => WorkPath.make(path))
    }
  }).pipe(Scope.provide(scope))
  const events: Array<RunEvent> = []
  const fiber = yield* Effect.forkChild(
    Stream.runForEach(run.events, (event) => Effect.sync(() => events.push(event))),
    { startImmediately: true }
  )
  return {
    run,
    events,
    close: Scope.close(scope, Exit.void),
    finish: Effect.gen(function*() {
      yield* Fiber.join(fiber)
      yield* Scope.close(scope, Exit.void)
      const last = events.at(-1)
      assert.strictEqual(last?._tag, "Finished")
      assert.strictEqual(fake.alive, 0)
      if (last?._tag !== "Finished") return yield* Effect.die("no outcome")
      return last
    })
  }
})

const outcomeOf = Effect.fnUntraced(function*(
  phase: Fake["phase"],
  options: Options = {},
  advance: Effect.Effect<unknown> = Effect.void
) {
  const fake = yield* makeFake
  fake.phase = phase
  const { finish } = yield* start(fake, options)
  yield* advance
  return (yield* finish).outcome
})

const isOutcome = (actual: Outcome, expected: Outcome) => assert.deepStrictEqual(actual, expected)

describe("a run in a sandbox", () => {
  it.effect("ends with its program's exit code", () =>
    Effect.gen(function*() {
      isOutcome(yield* outcomeOf(exits(0)), Outcomes.cases.Exited.make({ phase: "run", code: 0 }))
      isOutcome(yield* outcomeOf(exits(7)), Outcomes.cases.Exited.make({ phase: "run", code: 7 }))
    }))

  it.effect("does not run what did not compile", () =>
    Effect.gen(function*() {
      const names: Array<string> = []
      const outcome = yield* outcomeOf((phase) => {
        names.push(phase.name)
        return exits(1)(phase)
      }, { phases: ["compile", "run"] })
      isOutcome(outcome, Outcomes.cases.Exited.make({ phase: "compile", code: 1 }))
      assert.deepStrictEqual(names, ["compile"])
    }))

  it.effect("tells events in order, phases apart", () =>
    Effect.gen(function*() {
      const fake = yield* makeFake
      fake.phase = exits(0)
      const { events, finish } = yield* start(fake, { phases: ["compile", "run"] })
      yield* finish
      assert.deepStrictEqual(
        events.map((event) => "phase" in event ? `${event._tag} ${event.phase}` : event._tag),
        ["Ready", "PhaseStarted compile", "PhaseEnded compile", "PhaseStarted run", "PhaseEnded run", "Finished"]
      )
    }))

  it.effect("over its wall time is killed and says which limit it was", () =>
    Effect.gen(function*() {
      const fake = yield* makeFake
      const { finish } = yield* start(fake, { limits: { wallMs: 3000, cpuMs: 60_000 } })
      yield* TestClock.adjust("2999 millis")
      assert.deepStrictEqual(fake.signals, [])
      yield* TestClock.adjust("1 millis")
      isOutcome(
        (yield* finish).outcome,
        Outcomes.cases.TimedOut.make({ phase: "run", limit: "wall", limitMs: 3000 })
      )
      assert.deepStrictEqual(fake.signals, ["9 all"])
      assert.isFalse(fake.killed)
    }))

  it.effect("over its CPU time is killed, by the host's count", () =>
    Effect.gen(function*() {
      const fake = yield* makeFake
      const { finish } = yield* start(fake, { limits: { wallMs: 60_000, cpuMs: 2000, cpus: 1 } })
      yield* TestClock.adjust("1 second")
      fake.cpuMicros = 1_000_000
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(fake.signals, [])
      fake.cpuMicros = 2_000_000
      yield* TestClock.adjust("1 second")
      isOutcome(
        (yield* finish).outcome,
        Outcomes.cases.TimedOut.make({ phase: "run", limit: "cpu", limitMs: 2000 })
      )
    }))

  it.effect("whose guest reports nothing after the kill loses its whole sandbox, and the outcome stands", () =>
    Effect.gen(function*() {
      const fake = yield* makeFake
      fake.obeys = []
      const { finish } = yield* start(fake, { limits: { wallMs: 1000 } })
      yield* TestClock.adjust("2 seconds")
      assert.isTrue(fake.killed)
      isOutcome(
        (yield* finish).outcome,
        Outcomes.cases.TimedOut.make({ phase: "run", limit: "wall", limitMs: 1000 })
      )
    }))

  it.effect("whose guest does not even take the signal loses its whole sandbox as soon", () =>
    Effect.gen(function*() {
      const fake = yield* makeFake
      fake.isDeaf = true
      const { finish } = yield* start(fake, { limits: { wallMs: 1000 } })
      yield* TestClock.adjust("2 seconds")
      assert.isTrue(fake.killed)
      isOutcome(
        (yield* finish).outcome,
        Outcomes.cases.TimedOut.make({ phase: "run", limit: "wall", limitMs: 1000 })
      )
    }))

  it.effect("that is stopped gets TERM, its grace, then KILL", () =>
    Effect.gen(function*() {
      const fake = yield* makeFake
      const { finish, run } = yield* start(fake)
      yield* run.stop({ reason: "enough", graceMs: 2000 })
      yield* run.stop({ reason: "again", graceMs: 0 })
      yield* TestClock.adjust("1999 millis")
      assert.deepStrictEqual(fake.signals, ["15 main"])
      yield* TestClock.adjust("1 millis")
      isOutcome((yield* finish).outcome, Outcomes.cases.Stopped.make({ reason: "enough" }))
      assert.deepStrictEqual(fake.signals, ["15 main", "9 all"])
    }))

  it.effect("that obeys TERM is not killed", () =>
    Effect.gen(function*() {
      const fake = yield* makeFake
      fake.obeys = [15]
      const { finish, run } = yield* start(fake)
      yield* run.stop({ reason: "enough", graceMs: 2000 })
      isOutcome((yield* finish).outcome, Outcomes.cases.Stopped.make({ reason: "enough" }))
      assert.deepStrictEqual(fake.signals, ["15 main"])
    }))

  it.effect("that is stopped before it has a sandbox ends at once", () =>
    Effect.gen(function*() {
      const fake = yield* makeFake
      const { finish, run } = yield* start(fake, { take: () => Effect.never })
      yield* run.stop({ reason: "enough", graceMs: 60_000 })
      isOutcome((yield* finish).outcome, Outcomes.cases.Stopped.make({ reason: "enough" }))
    }))

  it.effect("is OutOfMemory by the kernel's counter, whatever its exit code", () =>
    Effect.gen(function*() {
      const outcome = yield* outcomeOf((phase) => Stream.make(ended(phase, { _tag: "Exited", code: 3 }, 1)))
      isOutcome(
        outcome,
        Outcomes.cases.OutOfMemory.make({ phase: "run", limitBytes: standardDefaults.memoryBytes })
      )
    }))

  it.effect("goes on over its output limit with truncate, and ends with kill", () =>
    Effect.gen(function*() {
      const flood = (phase: Phase) =>
        Stream.concat(
          Stream.make(bytes(60), bytes(60)),
          phase.limits.outputPolicy === "kill" ? Stream.never : exits(0)(phase)
        )
      isOutcome(
        yield* outcomeOf(flood, { limits: { outputBytes: 100 } }),
        Outcomes.cases.Exited.make({ phase: "run", code: 0 })
      )
      const fake = yield* makeFake
      const waits = fake.phase
      fake.phase = (phase) => Stream.concat(Stream.make(bytes(60), bytes(60)), waits(phase))
      const { finish } = yield* start(fake, { limits: { outputBytes: 100, outputPolicy: "kill" } })
      isOutcome(
        (yield* finish).outcome,
        Outcomes.cases.OutputExceeded.make({ phase: "run", stream: "stdout", limitBytes: 100 })
      )
    }))

  it.effect("that gets no sandbox is SandboxFailed with the driver's reason and remedy", () =>
    Effect.gen(function*() {
      const fake = yield* makeFake
      const take = () =>
        Effect.fail(new ProvisionFailed({ driver: "oci", step: "start", reason: "no crun", remedy: "Install crun." }))
      const { finish } = yield* start(fake, { take })
      isOutcome(
        (yield* finish).outcome,
        Outcomes.cases.SandboxFailed.make({ driver: "oci", reason: "start: no crun", remedy: "Install crun." })
      )
    }))

  it.effect("whose sandbox goes away is SandboxFailed", () =>
    Effect.gen(function*() {
      const gone = new SandboxLost({ driver: "oci", reason: "it ended", remedy: "none" })
      const outcome = yield* outcomeOf(() => Stream.fail(gone))
      isOutcome(outcome, Outcomes.cases.SandboxFailed.make({ driver: "oci", reason: "it ended", remedy: "none" }))
    }))

  it.effect("of a program that is not there, or of files that do not fit, is Rejected", () =>
    Effect.gen(function*() {
      const missing = new SandboxRefused({ operation: "run", errno: 2, reason: "exec nope: No such file or directory" })
      const absent = yield* outcomeOf(() => Stream.fail(missing))
      assert.strictEqual(absent._tag, "Rejected")
      const full = yield* outcomeOf(exits(0), { files: ["full"] })
      assert.strictEqual(full._tag, "Rejected")
    }))

  it.effect("brings artefacts back one by one before it has ended, and says why what is not there does not come", () =>
    Effect.gen(function*() {
      const fake = yield* makeFake
      fake.phase = exits(0)
      const { events, finish } = yield* start(fake, { artefacts: ["there", "absent"] })
      yield* finish
      assert.deepStrictEqual(events.slice(-3).map((event) => event._tag), ["Artefact", "ArtefactMissing", "Finished"])
      const [there, absent] = events.slice(-3)
      assert.strictEqual(there?._tag === "Artefact" ? Buffer.from(there.content).toString() : "", "artefact")
      assert.deepStrictEqual(absent, {
        _tag: "ArtefactMissing",
        path: WorkPath.make("absent"),
        reason: "there is no such file"
      })
    }))

  it.effect("of a sandbox that is lost says so of each artefact, and asks it no more", () =>
    Effect.gen(function*() {
      const fake = yield* makeFake
      fake.phase = exits(0)
      fake.isGone = true
      const { events, finish } = yield* start(fake, { artefacts: ["there", "absent"] })
      isOutcome((yield* finish).outcome, Outcomes.cases.Exited.make({ phase: "run", code: 0 }))
      const reasons = events.flatMap((event) => event._tag === "ArtefactMissing" ? [event.reason] : [])
      assert.deepStrictEqual(reasons, ["its sandbox is gone: it ended", "its sandbox is gone: it ended"])
      assert.strictEqual(fake.asked, 1)
    }))

  const source: Source = { language: "c", code: "int main(){}" }
  const says = (phase: "compile" | "run", code: number): NonNullable<Sandbox["source"]> => (asked) =>
    Stream.make<ReadonlyArray<PhaseEvent>>(
      { _tag: "Started", phase },
      bytes(3),
      ended({ ...asked, name: phase }, { _tag: "Exited", code })
    )

  it.effect("that is a source for an agent is told of as far as it came, and runs nothing else", () =>
    Effect.gen(function*() {
      for (const [phase, code] of [["run", 0], ["run", 3], ["compile", 1]] as const) {
        const fake = yield* makeFake
        fake.phase = () => Stream.die("nobody runs phases here")
        const { events, finish } = yield* start(fake, {
          agent: { source, does: says(phase, code) },
          phases: ["compile", "run"],
          files: ["full"]
        })
        const { outcome, usage } = yield* finish
        isOutcome(outcome, Outcomes.cases.Exited.make({ phase, code }))
        assert.deepStrictEqual(usage.phases.map((used) => used.phase), [phase])
        assert.isUndefined(disorderOf(events))
        assert.strictEqual(usage.phases[0]?.stdoutBytes, 3)
      }
    }))

  it.effect("that is a source has the time of both phases, and its sandbox is killed after it", () =>
    Effect.gen(function*() {
      const fake = yield* makeFake
      fake.isDeaf = true
      const { events, finish } = yield* start(fake, {
        agent: {
          source,
          does: () =>
            Stream.fromEffect(
              Effect.andThen(
                Queue.take(fake.die),
                Effect.never
              ).pipe(Effect.mapError(() => new SandboxLost({ driver: "oci", reason: "killed", remedy: "none" })))
            )
        },
        phases: ["compile", "run"],
        limits: { wallMs: 3000, cpuMs: 60_000 }
      })
      yield* TestClock.adjust("5999 millis")
      assert.isFalse(fake.killed || fake.signals.length > 0)
      yield* TestClock.adjust("1001 millis")
      assert.isTrue(fake.killed)
      isOutcome(
        (yield* finish).outcome,
        Outcomes.cases.TimedOut.make({ phase: "run", limit: "wall", limitMs: 6000 })
      )
      assert.isUndefined(disorderOf(events))
    }))

  it.effect("that is more than a source is Rejected where there is only an agent, without a sandbox", () =>
    Effect.gen(function*() {
      const fake = yield* makeFake
      const { events, finish } = yield* start(fake, { agent: { does: says("run", 0) } })
      const { outcome } = yield* finish
      assert.strictEqual(outcome._tag, "Rejected")
      assert.deepStrictEqual(events.map(({ _tag }) => _tag), ["Finished"])
    }))

  it.effect("whose scope closes in the middle leaves no sandbox", () =>
    Effect.gen(function*() {
      const fake = yield* makeFake
      const { close } = yield* start(fake)
      yield* Effect.repeat(Effect.yieldNow, { times: 50 })
      assert.strictEqual(fake.alive, 1)
      yield* close
      assert.strictEqual(fake.alive, 0)
    }))
})
