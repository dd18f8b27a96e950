/** A job's run: its bytes go to the log, its files to the artefacts, its facts to the teller, and its sandbox goes when it is over. */
import { Cause, Deferred, Effect, Exit, Option, Scope, Stream } from "effect"
import { Settings } from "../layers/config/Settings.ts"
import { storeLog } from "../layers/executor/Buckets.ts"
import { type Assignment, Executor, type Run, type StopRequest } from "../layers/executor/Executor.ts"
import { Log, type LogError, type LogWriter } from "../layers/log/Log.ts"
import { monotonicNanos, nowMs } from "../layers/Now.ts"
import { within } from "../layers/Release.ts"
import { type Job, keyOf } from "../schemas/Job.ts"
import { Outcome } from "../schemas/Outcome.ts"
import { Desk, type Underway } from "./Desk.ts"
import { gather, type Gathering } from "./JobArtefacts.ts"
import type { JobPlan } from "./JobPlan.ts"
import { type JobResult, unrun } from "./JobResult.ts"
import { JobTelemetry } from "./JobTelemetry.ts"
import type { Teller } from "./Teller.ts"

const diskTrouble = (error: LogError) =>
  Outcome.cases.SandboxFailed.make({ driver: "log", reason: error.reason, remedy: error.remedy })

/** Follows a run to its outcome: bytes to the log, files to the artefacts, facts to the teller. */
const follow = Effect.fnUntraced(function*(
  run: Run,
  writer: LogWriter,
  gathering: Gathering,
  teller: Teller,
  underway: (place: string) => Effect.Effect<Underway>
) {
  const telemetry = yield* JobTelemetry
  let here: Underway | undefined
  let result: JobResult | undefined
  const failed = yield* Effect.exit(Stream.runForEach(run.events, (event) => {
    switch (event._tag) {
      case "Output":
        telemetry.wrote(event.stream, event.bytes.length)
        return writer.append(event.stream, event.bytes)
      case "Ready":
        telemetry.provisioned(event.provisionMicros)
        return Effect.flatMap(underway(event.place), (begun) => {
          here = begun
          return teller.tell({ _tag: "Running", place: event.place })
        })
      case "PhaseStarted":
        telemetry.phaseStarted()
        if (here !== undefined) here.phase = event.phase
        return teller.tell({ _tag: "PhaseStarted", phase: event.phase })
      case "PhaseEnded":
        telemetry.phaseEnded(event.usage)
        if (here !== undefined) here.phase = undefined
        return teller.tell({ _tag: "PhaseEnded", phase: event.phase, usage: event.usage })
      case "Artefact":
        return gathering.add(event.path, event.content)
      case "ArtefactStored": {
        const { bucket, bytes, key, path } = event
        return gathering.store({ path, bucket, key, bytes })
      }
      case "ArtefactMissing":
        return gathering.miss(event.path, event.reason)
      case "Finished":
        result = { ...unrun(event.outcome), usage: event.usage }
        return Effect.void
    }
  }))
  if (Exit.isFailure(failed)) {
    const error = Cause.findErrorOption(failed.cause)
    if (Option.isNone(error)) return yield* Effect.failCause(failed.cause as Cause.Cause<never>)
    return unrun(diskTrouble(error.value))
  }
  return result ?? unrun(Outcome.cases.SandboxFailed.make({
    driver: "executor",
    reason: "the run ended without an outcome",
    remedy: "This is a defect of Stoker; please report it."
  }))
})

/** Runs what was planned; its sandbox goes as soon as the outcome is known, while that is being written down. */
export const execute = Effect.fnUntraced(
  function*(
    job: Job,
    { attempt, ...tried }: Pick<Assignment, "attempt" | "firstAttempt">,
    assigned: JobPlan,
    stop: Deferred.Deferred<StopRequest>,
    teller: Teller
  ) {
    const outer = yield* Effect.scope
    const telemetry = yield* JobTelemetry
    const startedAtMs = yield* nowMs
    const keepBytes = Math.max(...assigned.program.phases.map(({ limits }) => limits.outputBytes))
    const writer = yield* Effect.result((yield* Log).open(keyOf(job), { attempt, keepBytes }))
    if (writer._tag === "Failure") return unrun(diskTrouble(writer.failure))

    const place = yield* Scope.make()
    yield* Scope.addFinalizer(outer, Scope.close(place, Exit.void).pipe(within("the job's sandbox", "15 seconds")))
    const gathering = yield* gather(keyOf(job), assigned.program.artefacts)
    const { artefactBytes } = yield* Settings
    const executor = yield* Executor
    const assignment: Assignment = { job, attempt, ...tried, artefactBytes, ...assigned }
    // What an earlier attempt began where it outlives its worker is gone on with, not begun a second time.
    const adopted = yield* executor.adopt(assignment).pipe(Scope.provide(place))
    const run = adopted ?? (yield* executor.start(assignment).pipe(Scope.provide(place)))
    const stopper = yield* Effect.forkIn(Effect.flatMap(Deferred.await(stop), run.stop), place)
    const desk = yield* Desk
    const underway = Effect.fnUntraced(function*(at: string) {
      const { function: name } = job
      const sinceNanos = yield* monotonicNanos
      const begun: Underway = {
        key: keyOf(job),
        function: name,
        class: assigned.class.name,
        attempt,
        place: at,
        sinceNanos,
        phase: undefined,
        observe: run.observe ?? Effect.succeed({})
      }
      desk.underway.add(begun)
      yield* Scope.addFinalizer(place, Effect.sync(() => desk.underway.delete(begun)))
      return begun
    })
    const result = yield* follow(run, writer.success, gathering, teller, underway)
    const harvest = gathering.harvest()
    const removed = Scope.close(place, Exit.void).pipe(within("the job's sandbox", "15 seconds"))
    yield* Effect.forkIn(telemetry.tearingDown(removed), outer)
    stopper.interruptUnsafe()

    const output = yield* Effect.result(telemetry.endingLog(writer.success.end))
    if (output._tag === "Success") telemetry.logEnded(output.success)
    const ended: JobResult = { ...result, startedAtMs, ...(harvest === undefined ? {} : { harvest }) }
    return output._tag === "Failure"
      ? { ...ended, outcome: diskTrouble(output.failure) }
      : { ...ended, outcome: yield* storeLog(job, assigned.program, ended.outcome, stop), output: output.success }
  }
)
