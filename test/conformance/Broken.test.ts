/** A suite proves something only if wrong drivers and executors fail it: here are some, each with the case that sees it. */
import { afterAll, assert, describe, layer } from "@effect/vitest"
import { Effect, Scope, Stream } from "effect"
import { type Case, casesFor } from "../../src/conformance/Case.ts"
import { ConformanceDriver, ConformanceHost } from "../../src/conformance/ConformanceHost.ts"
import { driverCases } from "../../src/conformance/DriverCases.ts"
import { executorCases } from "../../src/conformance/ExecutorCases.ts"
import { type Assignment, Executor, type Run, type RunEvent } from "../../src/layers/executor/Executor.ts"
import * as ExecutorTest from "../../src/layers/executor/ExecutorTest.ts"
import type { Driver, Sandbox } from "../../src/layers/sandbox/Sandbox.ts"
import * as SandboxTest from "../../src/layers/sandbox/SandboxTest.ts"
import type { Limits } from "../../src/schemas/Limits.ts"
import { Outcome } from "../../src/schemas/Outcome.ts"
import type { Phase } from "../../src/schemas/Program.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import { patience } from "../support/Slowness.ts"
import * as Host from "./Host.ts"

type ExecutorService = Executor["Service"]

/** An executor whose runs are changed. */
const runsAs = (change: (run: Run) => Run) => (real: ExecutorService): ExecutorService => ({
  ...real,
  start: (assignment) => Effect.map(real.start(assignment), change)
})

/** Whose events are changed one by one. */
const saying = (change: (event: RunEvent) => ReadonlyArray<RunEvent>) =>
  runsAs((run) => ({ ...run, events: Stream.flatMap(run.events, (event) => Stream.fromIterable(change(event))) }))

/** That changes what it is asked to run. */
const hearing = (change: (assignment: Assignment) => Assignment) => (real: ExecutorService): ExecutorService => ({
  ...real,
  start: (assignment) => real.start(change(assignment))
})

const changed = (phase: Phase, limits: Partial<Limits>): Phase => ({ ...phase, limits: { ...phase.limits, ...limits } })

const withLimits = (limits: Partial<Limits>) =>
  hearing((assignment) => {
    const [first, ...others] = assignment.program.phases
    const phases = [changed(first, limits), ...others.map((phase) => changed(phase, limits))] as const
    return { ...assignment, program: { ...assignment.program, phases } }
  })

const ended = (change: (outcome: Outcome) => Outcome) =>
  saying((event) => [event._tag === "Finished" ? { ...event, outcome: change(event.outcome) } : event])

/** What is wrong with it, the case that has to see it, and it. */
const executors: ReadonlyArray<readonly [string, string, (real: ExecutorService) => ExecutorService]> = [
  [
    "puts stderr on stdout",
    "each byte value arrives",
    saying((event) => [event._tag === "Output" ? { ...event, stream: "stdout" } : event])
  ],
  [
    "ends text with a newline",
    "each byte value arrives",
    saying((event) =>
      event._tag === "PhaseEnded" ? [{ _tag: "Output", stream: "stdout", bytes: Buffer.from("\n") }, event] : [event]
    )
  ],
  [
    "reads output as text",
    "each byte value arrives",
    saying((
      event
    ) => [event._tag === "Output" ? { ...event, bytes: Buffer.from(Buffer.from(event.bytes).toString()) } : event])
  ],
  ["finishes twice", "events come in order", saying((event) => event._tag === "Finished" ? [event, event] : [event])],
  [
    "forgets that a phase began",
    "events come in order",
    saying((event) => event._tag === "PhaseStarted" ? [] : [event])
  ],
  [
    "tells the shell's 128 + signal",
    "Signalled has the signal",
    ended((outcome) =>
      outcome._tag === "Signalled" ? Outcome.cases.Exited.make({ phase: "run", code: 128 + outcome.signal }) : outcome
    )
  ],
  [
    "takes the kernel's kill for the program's own end",
    "OutOfMemory when only a child",
    ended((outcome) => outcome._tag === "OutOfMemory" ? Outcome.cases.Exited.make({ phase: "run", code: 3 }) : outcome)
  ],
  ["has no limit of time", "TimedOut at its wall limit, in the run", withLimits({ wallMs: 5000 })],
  ["has no limit of processes", "pids: so many", withLimits({ pids: 30 })],
  [
    "kills at once when it is to stop",
    "Stopped by TERM",
    runsAs((run) => ({ ...run, stop: ({ reason }) => run.stop({ reason, graceMs: 0 }) }))
  ],
  [
    "counts the CPU time of one process in two",
    "CPU time is the program's own",
    saying((event) => {
      if (event._tag !== "Finished") return [event]
      const phases = event.usage.phases.map((phase) => ({ ...phase, cpuMicros: (phase.cpuMicros ?? 0) / 2 }))
      return [{ ...event, usage: { ...event.usage, phases } }]
    })
  ],
  [
    "hands the worker's environment on",
    "the environment is that of the phase",
    hearing((assignment) => {
      const [first, ...others] = assignment.program.phases
      const phases = [{ ...first, env: { ...process.env, ...first.env } as Phase["env"] }, ...others] as const
      return { ...assignment, program: { ...assignment.program, phases } }
    })
  ],
  [
    "brings no files back",
    "artefacts are exact",
    saying((event) => event._tag === "Artefact" ? [] : [event])
  ]
]

/** A driver whose sandboxes are changed. */
const sandboxesAs = (change: (sandbox: Sandbox) => Sandbox) => (real: Driver): Driver => ({
  ...real,
  provision: (sandboxClass, disk) => Effect.map(real.provision(sandboxClass, disk), change)
})

/** The last scope: what a broken driver leaves behind goes when its case has been tried. */
const drivers = (leaking: Scope.Scope): ReadonlyArray<readonly [string, string, (real: Driver) => Driver]> => [
  [
    "leaves sandboxes behind",
    "its scope closed, nothing",
    (real) => ({
      ...real,
      provision: (sandboxClass, disk) => Scope.provide(real.provision(sandboxClass, disk), leaking)
    })
  ],
  [
    "gives one sandbox again and again",
    "a fresh sandbox each time: nothing of the one before it is in",
    (real) => {
      let made: Sandbox | undefined
      return {
        ...real,
        provision: Effect.fnUntraced(function*(sandboxClass, disk) {
          made ??= yield* Scope.provide(real.provision(sandboxClass, disk), leaking)
          return made
        })
      }
    }
  ],
  ["does not kill", "kill of an idle sandbox", sandboxesAs((sandbox) => ({ ...sandbox, kill: Effect.void }))],
  [
    "signals all where main is meant",
    "a signal for main",
    sandboxesAs((sandbox) => ({ ...sandbox, signal: (signal) => sandbox.signal(signal, "all") }))
  ],
  [
    "signals main where all is meant",
    "a signal for all",
    sandboxesAs((sandbox) => ({ ...sandbox, signal: (signal) => sandbox.signal(signal, "main") }))
  ],
  [
    "cuts files off at the limit",
    "get refuses",
    sandboxesAs((sandbox) => ({
      ...sandbox,
      get: (path, maximum) => Effect.map(sandbox.get(path, 2 ** 30), (bytes) => bytes.subarray(0, maximum))
    }))
  ],
  [
    "makes no file executable",
    "files are put as they are",
    sandboxesAs((sandbox) => ({
      ...sandbox,
      put: (files) => sandbox.put(files.map((file) => ({ ...file, executable: false })))
    }))
  ],
  [
    "measures nothing",
    "measure and observe",
    sandboxesAs((sandbox) => ({ ...sandbox, measure: Effect.succeed({ cpuMicros: 1 }) }))
  ],
  [
    "says that a dead worker's sandbox is gone",
    "reap removes",
    (real) => ({ ...real, reap: () => Effect.succeed(true) })
  ],
  [
    "makes what cannot be made",
    "one that cannot be made",
    (real) => ({
      ...real,
      provision: (sandboxClass, disk) => real.provision({ ...sandboxClass, cpuset: "0" }, disk)
    })
  ],
  [
    "says gaps without a remedy",
    "check changes nothing",
    (real) => ({ ...real, check: Effect.succeed([{ name: "root", status: "missing", detail: "not root" }]) })
  ]
]

const named = <R>(cases: ReadonlyArray<Case<R>>, beginning: string) => {
  const found = cases.filter(({ name }) => name.startsWith(beginning))
  assert.strictEqual(found.length, 1, `cases that begin with "${beginning}"`)
  return found
}

/** Those that fail it, by name. */
const failing = <R>(cases: ReadonlyArray<Case<R>>) =>
  Effect.map(
    Effect.forEach(cases, ({ check, name }) =>
      Effect.match(check, {
        onFailure: (failure) => {
          assert.strictEqual(failure.case, name)
          assert.isNotEmpty(failure.expected)
          return [name]
        },
        onSuccess: () => []
      })),
    (names) => names.flat()
  )

/** Every phase begins, says nothing and exits with 0. */
const hollow: ExecutorTest.Script = ({ program }) => {
  const phases = program.phases.map(({ name }) => ({ phase: name, wallMicros: 5 }))
  const told = phases.flatMap((usage): ReadonlyArray<RunEvent> => [
    { _tag: "PhaseStarted", phase: usage.phase },
    { _tag: "PhaseEnded", phase: usage.phase, usage }
  ])
  const end = ExecutorTest.finished(Outcome.cases.Exited.make({ phase: "run", code: 0 }))
  return Stream.make<ReadonlyArray<RunEvent>>(
    { _tag: "Ready", place: "/fake", provisionMicros: 1000 },
    ...told,
    end._tag === "Finished" ? { ...end, usage: { phases } } : end
  )
}

const state = Jobs.stateDirectory()

describe("what is broken is caught", () => {
  afterAll(() => Jobs.remove(state))

  layer(Host.layer("process", state), { excludeTestServices: true, timeout: patience(60_000) })(
    "on this host",
    (it) => {
      for (const [wrong, name, broken] of executors) {
        it.effect(`an executor that ${wrong}`, () =>
          Effect.gen(function*() {
            const cases = named(executorCases, name)
            const real = yield* Executor
            assert.deepStrictEqual(
              yield* Effect.provideService(failing(cases), Executor, broken(real)),
              cases.map((each) => each.name)
            )
          }), patience(60_000))
      }

      for (const [index, [wrong, name]] of drivers(Scope.makeUnsafe()).entries()) {
        it.effect(`a driver that ${wrong}`, () =>
          Effect.scoped(Effect.gen(function*() {
            const cases = named(driverCases, name)
            const real = yield* ConformanceDriver
            const host = yield* ConformanceHost
            const broken = drivers(yield* Effect.scope)[index]?.[2](real) ?? real
            const failed = failing(cases).pipe(
              Effect.provideService(ConformanceDriver, broken),
              // Nobody has to wait long for what never goes.
              Effect.provideService(ConformanceHost, { ...host, slowness: host.slowness / 10 })
            )
            assert.deepStrictEqual(yield* failed, cases.map((each) => each.name))
          })), patience(60_000))
      }

      it.effect("an executor that only says so, in the right order, passes hardly any case", () =>
        Effect.gen(function*() {
          const host = yield* ConformanceHost
          const cases = casesFor(executorCases, host.capabilities)
          const failed = yield* failing(cases).pipe(
            Effect.provide(ExecutorTest.layerTest(hollow)),
            Effect.provideService(ConformanceHost, { ...host, slowness: 0.02 })
          )
          const passed = cases.map(({ name }) => name).filter((name) => !failed.includes(name))
          // What is said of those that print nothing, exit with 0 and leave nothing.
          assert.isAtMost(passed.length, cases.length / 5, passed.join("; "))
        }))

      it.effect("a driver that only says so: the stand-in passes hardly any case", () =>
        Effect.gen(function*() {
          const host = yield* ConformanceHost
          const { driver } = SandboxTest.makeDriver({ name: "process" })
          const cases = driverCases.filter(({ name }) => !name.includes("reap"))
          const failed = yield* failing(cases).pipe(
            Effect.provideService(ConformanceDriver, driver),
            Effect.provideService(ConformanceHost, { ...host, slowness: 0.02 })
          )
          const passed = cases.map(({ name }) => name).filter((name) => !failed.includes(name))
          assert.isAtMost(passed.length, cases.length / 5, passed.join("; "))
        }))
    }
  )
})
