/** Runs a job in a sandbox of its class: take, put, phases under their limits, artefacts. Drivers stay simple for it. */
import { Cause, Deferred, Effect, Exit, Fiber, Layer, Option, Queue, Result, Scope, Stream } from "effect"
import { encodeInvocation } from "../../guest/Invocation.ts"
import { Outcome, type StreamName } from "../../schemas/Outcome.ts"
import type { Phase, PhaseName } from "../../schemas/Program.ts"
import type { Observation, PhaseUsage, Usage } from "../../schemas/Usage.ts"
import { monotonicNanos } from "../Now.ts"
import { ObjectStore } from "../objectstore/ObjectStore.ts"
import type {
  PhaseEvent,
  PhaseExit,
  ProvisionFailed,
  Sandbox,
  SandboxLost,
  SandboxRefused
} from "../sandbox/Sandbox.ts"
import { Sandboxes } from "../sandbox/Sandboxes.ts"
import * as Buckets from "./Buckets.ts"
import { collect } from "./Collect.ts"
import * as CompileOnce from "./CompileOnce.ts"
import * as ContainerRun from "./ContainerRun.ts"
import { type Assignment, Executor, type Run, type RunEvent, type StopRequest } from "./Executor.ts"
import * as SourceRun from "./SourceRun.ts"

/** A phase that was told to die has this long to be reported dead by its guest before its sandbox is killed. */
const REPORT_MS = 1000

const SIGTERM = 15
const SIGKILL = 9
const ENOENT = 2
const EACCES = 13
const ENOEXEC = 8
const ENOMEM = 12
const ENOSPC = 28

/** Why a phase is being ended by us. The first reason stands. */
type Verdict =
  | { readonly _tag: "Limit"; readonly outcome: Outcome }
  | { readonly _tag: "Stop"; readonly request: StopRequest }

/** What one phase came to: `undefined` means the next one may begin. */
interface PhaseResult {
  readonly outcome: Outcome | undefined
  readonly usage: PhaseUsage
}

const stopped = (request: StopRequest): Outcome => Outcome.cases.Stopped.make({ reason: request.reason })

const provisionFailed = (error: ProvisionFailed): Outcome =>
  Outcome.cases.SandboxFailed.make({
    driver: error.driver,
    reason: `${error.step}: ${error.reason}`,
    remedy: error.remedy
  })

const lost = (error: SandboxLost): Outcome =>
  Outcome.cases.SandboxFailed.make({ driver: error.driver, reason: error.reason, remedy: error.remedy })

const refused = (error: SandboxRefused, phase?: Phase): Outcome => {
  if (phase !== undefined && error.operation === "run" && error.errno === ENOMEM) {
    return Outcome.cases.OutOfMemory.make({ phase: phase.name, limitBytes: phase.limits.memoryBytes })
  }
  if (error.operation === "run" && (error.errno === ENOENT || error.errno === EACCES || error.errno === ENOEXEC)) {
    return Outcome.cases.Rejected.make({
      reason: `the program cannot be started: ${error.reason}`,
      remedy:
        "Check its name; `stoker doctor` lists the languages and tools of this host, and `stoker image show` what a machine has."
    })
  }
  return Outcome.cases.Rejected.make({
    reason: error.message,
    remedy: error.errno === ENOSPC
      ? "Send less, or ask for more with the limits diskBytes and diskInodes."
      : "Check the paths and contents of the job's files."
  })
}

/** How the phase ended by itself: `undefined` when the next phase may begin. */
const ended = (phase: Phase, exit: PhaseExit, usage: PhaseUsage, last: boolean): Outcome | undefined => {
  if ((usage.oomKills ?? 0) > 0) {
    return Outcome.cases.OutOfMemory.make({ phase: phase.name, limitBytes: phase.limits.memoryBytes })
  }
  if (exit._tag === "Signalled") return Outcome.cases.Signalled.make({ phase: phase.name, signal: exit.signal })
  if (last || exit.code !== 0) return Outcome.cases.Exited.make({ phase: phase.name, code: exit.code })
  return undefined
}

const micros = (from: bigint, to: bigint) => Number((to - from) / 1000n)

/** Ends the phase when a limit of time is reached; measures CPU no oftener than it could have been used up. */
const watchTime = Effect.fnUntraced(
  function*(sandbox: Sandbox, phase: Phase, decide: (verdict: Verdict) => Effect.Effect<unknown>) {
    const { cpuMs, cpus, wallMs } = phase.limits
    const { cpuMicros: baseMicros } = yield* sandbox.measure
    const limit = (which: "wall" | "cpu", limitMs: number) =>
      decide({ _tag: "Limit", outcome: Outcome.cases.TimedOut.make({ phase: phase.name, limit: which, limitMs }) })
    const cpu = Effect.gen(function*() {
      if (baseMicros === undefined) return
      let leftMs: number = cpuMs
      while (leftMs > 0) {
        yield* Effect.sleep(Math.max(10, Math.ceil(leftMs / Math.max(1, cpus))))
        leftMs = cpuMs - ((yield* sandbox.measure).cpuMicros ?? baseMicros) / 1000 + baseMicros / 1000
      }
      yield* limit("cpu", cpuMs)
    })
    yield* Effect.all([Effect.andThen(Effect.sleep(wallMs), limit("wall", wallMs)), cpu], {
      concurrency: "unbounded",
      discard: true
    })
  }
)

/**
 * Carries out the first verdict: TERM and a grace for a stop, KILL for a limit, the whole sandbox if that fails, also
 * when its guest does not even take the signal.
 */
const carryOut = Effect.fnUntraced(function*(sandbox: Sandbox, verdict: Verdict) {
  if (verdict._tag === "Stop" && verdict.request.graceMs > 0) {
    yield* Effect.forkScoped(Effect.ignore(sandbox.signal(SIGTERM, "main")), { startImmediately: true })
    yield* Effect.sleep(verdict.request.graceMs)
  }
  yield* Effect.forkScoped(Effect.ignore(sandbox.signal(SIGKILL, "all")), { startImmediately: true })
  yield* Effect.sleep(REPORT_MS)
  yield* sandbox.kill
})

/** What a phase is to the sandbox, or why it cannot be. */
const begin = (sandbox: Sandbox, phase: Phase, { attempt, job, program: { call } }: Assignment) => {
  if (call === undefined) return Result.succeed(sandbox.run(phase))
  if (sandbox.call === undefined) {
    return Result.fail(Outcome.cases.Rejected.make({
      reason: `${call.function} runs in a function host, which driver ${sandbox.driver} does not have here`,
      remedy: "Use a sandbox class of oci or process, of a worker that has the function's handler."
    }))
  }
  const { id, owner } = job
  return Result.succeed(sandbox.call(phase, encodeInvocation({ ...call, id, owner, attempt })))
}

const runPhase = Effect.fnUntraced(
  function*(
    sandbox: Sandbox,
    phase: Phase,
    happens: Stream.Stream<PhaseEvent, SandboxLost | SandboxRefused>,
    last: boolean,
    stop: Deferred.Deferred<StopRequest>,
    emit: (event: RunEvent) => Effect.Effect<unknown>,
    isSource = false
  ) {
    const verdict = yield* Deferred.make<Verdict>()
    const decide = (what: Verdict) => Deferred.succeed(verdict, what)
    const began = yield* monotonicNanos
    const produced: Record<StreamName, number> = { stdout: 0, stderr: 0 }
    let report: { readonly exit: PhaseExit; readonly usage: PhaseUsage } | undefined

    /** The phase as it is told: of a source, what begins with its answer. */
    let name = phase.name
    let isTold = false
    const tell = (as: PhaseName) =>
      Effect.suspend(() => {
        if (isTold) return Effect.void
        isTold = true
        name = as
        return emit({ _tag: "PhaseStarted", phase: as })
      })
    if (!isSource) yield* tell(name)
    const running = yield* happens.pipe(
      Stream.runForEach((event) => {
        switch (event._tag) {
          case "Started":
            return event.phase === undefined ? Effect.void : tell(event.phase)
          case "Output": {
            const { bytes, stream } = event
            produced[stream] += bytes.length
            const output = emit({ _tag: "Output", stream, bytes })
            if (phase.limits.outputPolicy === "truncate" || produced[stream] <= phase.limits.outputBytes) return output
            const outcome = Outcome.cases.OutputExceeded.make({
              phase: phase.name,
              stream,
              limitBytes: phase.limits.outputBytes
            })
            return Effect.andThen(output, decide({ _tag: "Limit", outcome }))
          }
          case "Ended":
            report = event
            return Effect.void
        }
      }),
      // On its way before anybody begins to watch it: what is to be done first comes first.
      Effect.forkScoped({ startImmediately: true })
    )
    yield* Effect.forkScoped(watchTime(sandbox, phase, decide))
    yield* Effect.forkScoped(Effect.flatMap(Deferred.await(stop), (request) => decide({ _tag: "Stop", request })))
    yield* Effect.forkScoped(Effect.flatMap(Deferred.await(verdict), (what) => carryOut(sandbox, what)))
    const exit = yield* Fiber.await(running)
    yield* tell(name)
    const usage: PhaseUsage = {
      ...(report?.usage ?? { wallMicros: micros(began, yield* monotonicNanos) }),
      phase: name,
      stdoutBytes: produced.stdout,
      stderrBytes: produced.stderr
    }
    yield* emit({ _tag: "PhaseEnded", phase: name, usage })

    const result = (outcome: Outcome | undefined): PhaseResult => ({ outcome, usage })
    const decided = Deferred.isDoneUnsafe(verdict) ? yield* Deferred.await(verdict) : undefined
    if (decided !== undefined) return result(decided._tag === "Stop" ? stopped(decided.request) : decided.outcome)
    if (Exit.isFailure(exit)) {
      const error = Cause.findErrorOption(exit.cause)
      if (Option.isNone(error)) return yield* Effect.failCause(exit.cause as Cause.Cause<never>)
      return result(error.value._tag === "SandboxLost" ? lost(error.value) : refused(error.value, phase))
    }
    return result(
      report === undefined
        ? Outcome.cases.SandboxFailed.make({
          driver: sandbox.driver,
          reason: `the ${phase.name} phase ended without a report`,
          remedy: "This is a defect of the driver; please report it."
        })
        : ended({ ...phase, name }, report.exit, report.usage, last)
    )
  },
  Effect.scoped
)

/** The largest workspace any phase may fill: a tmpfs is sized when it is made. */
const disk = ({ program }: Assignment) => ({
  bytes: Math.max(...program.phases.map((phase) => phase.limits.diskBytes)),
  inodes: Math.max(...program.phases.map((phase) => phase.limits.diskInodes))
})

const carry = Effect.fnUntraced(
  function*(
    sandboxes: Sandboxes["Service"],
    compileOnce: Effect.Success<typeof CompileOnce.make>,
    assignment: Assignment,
    stop: Deferred.Deferred<StopRequest>,
    scope: Scope.Scope,
    emit: (event: RunEvent) => Effect.Effect<unknown>,
    holds: (sandbox: Sandbox) => void
  ) {
    const { phases } = assignment.program
    const used: Array<PhaseUsage> = []
    const provision: { provisionMicros?: number } = {}
    const finish = (outcome: Outcome) => {
      const usage: Usage = { ...provision, phases: used }
      return emit({ _tag: "Finished", outcome, usage })
    }

    const placed = ContainerRun.placed(assignment)
    if (Result.isFailure(placed)) return yield* finish(placed.failure)
    const sandboxClass = placed.success
    const store = yield* Effect.serviceOption(ObjectStore)
    const unstored = Buckets.refusal(assignment.program, store)
    if (unstored !== undefined) return yield* finish(unstored)
    for (const { limits } of phases) {
      const held = yield* Effect.result(sandboxes.accepts(sandboxClass, limits))
      if (held._tag === "Success") continue
      return yield* finish(Outcome.cases.Rejected.make({ reason: held.failure.message, remedy: held.failure.remedy }))
    }

    const whole = SourceRun.isFor(sandboxClass) ? SourceRun.of(assignment.program, sandboxClass) : undefined
    if (whole !== undefined && Result.isFailure(whole)) return yield* finish(whole.failure)

    const asked = yield* monotonicNanos
    const taking = yield* sandboxes.take(sandboxClass, disk(assignment)).pipe(
      Scope.provide(scope),
      Effect.forkScoped({ startImmediately: true })
    )
    const compiled = yield* compileOnce(assignment)
    // One that stood ready is here already.
    const taken = yield* (taking.pollUnsafe() ?? Fiber.join(taking).pipe(
      Effect.raceFirst(Effect.flip(Deferred.await(stop))),
      Effect.onInterrupt(() => Fiber.interrupt(taking))
    )).pipe(Effect.result)
    if (taken._tag === "Failure") {
      return yield* finish("_tag" in taken.failure ? provisionFailed(taken.failure) : stopped(taken.failure))
    }
    const sandbox = taken.success
    holds(sandbox)
    const provisionMicros = micros(asked, yield* monotonicNanos)
    provision.provisionMicros = provisionMicros
    yield* emit({ _tag: "Ready", place: sandbox.place, provisionMicros })

    if (whole !== undefined && sandbox.source !== undefined) {
      const { phase, source } = whole.success
      const { outcome, usage } = yield* runPhase(sandbox, phase, sandbox.source(phase, source), true, stop, emit, true)
      used.push(usage)
      return yield* finish(outcome ?? (yield* Effect.die("the last phase always has an outcome")))
    }
    const put = yield* Effect.result(sandbox.put(assignment.program.files))
    if (put._tag === "Failure") {
      return yield* finish(put.failure._tag === "SandboxLost" ? lost(put.failure) : refused(put.failure))
    }
    const brought = yield* Effect.result(Buckets.bringIn(assignment.program, store, sandbox, stop, lost))
    if (brought._tag === "Failure") return yield* finish(brought.failure)
    const replayed = yield* compiled.replay(sandbox, emit)
    if (replayed !== undefined) used.push(replayed)
    for (const [index, planned] of phases.entries()) {
      // Replayed: it need not run.
      if (index < used.length) continue
      const inside = ContainerRun.phaseIn(sandbox, planned, assignment.program)
      if (Result.isFailure(inside)) return yield* finish(inside.failure)
      const phase = inside.success
      const hear = compiled.listening(phase, emit)
      const happens = begin(sandbox, phase, assignment)
      if (Result.isFailure(happens)) return yield* finish(happens.failure)
      const isLast = index === phases.length - 1
      const { outcome, usage } = yield* runPhase(sandbox, phase, happens.success, isLast, stop, hear)
      used.push(usage)
      if (outcome !== undefined) {
        // However it ended: what a job had written when its time was up is wanted most.
        const carried = yield* Buckets.takeOut(assignment.program, store, sandbox, outcome, stop, emit)
        if (carried !== undefined) return yield* finish(carried)
        yield* collect(sandbox, assignment, emit)
        return yield* finish(outcome)
      }
      yield* compiled.keep(sandbox)
    }
    return yield* Effect.die("the last phase always has an outcome")
  }
)

const make = Effect.gen(function*() {
  const sandboxes = yield* Sandboxes
  const compileOnce = yield* CompileOnce.make
  const start = Effect.fn("SandboxExecutor.start")(function*(assignment: Assignment) {
    const scope = yield* Effect.scope
    const events = yield* Queue.bounded<RunEvent, Cause.Done>(16)
    const stop = yield* Deferred.make<StopRequest>()
    let held: Sandbox | undefined
    const holds = (sandbox: Sandbox) => {
      held = sandbox
    }
    yield* carry(sandboxes, compileOnce, assignment, stop, scope, (event) => Queue.offer(events, event), holds).pipe(
      Effect.catchCause((cause) =>
        Effect.andThen(
          Effect.logError("a run ended in a defect", cause),
          Queue.offer(events, {
            _tag: "Finished",
            outcome: Outcome.cases.SandboxFailed.make({
              driver: assignment.class.driver,
              reason: `internal error: ${String(Cause.squash(cause))}`,
              remedy: "This is a defect of Stoker; please report it with the worker's log."
            }),
            usage: { phases: [] }
          })
        )
      ),
      Effect.andThen(Queue.end(events)),
      Effect.forkScoped({ startImmediately: true })
    )
    const run: Run = {
      events: Stream.fromQueue(events),
      stop: (request) => Effect.asVoid(Deferred.succeed(stop, request)),
      observe: Effect.suspend((): Effect.Effect<Observation> => held?.observe ?? held?.measure ?? Effect.succeed({}))
    }
    return run
  })
  return Executor.of({ start, adopt: () => Effect.undefined })
})

/** Nothing of a sandbox outlives its worker, so there is never a run to adopt. */
export const layer = Layer.effect(Executor, make)
