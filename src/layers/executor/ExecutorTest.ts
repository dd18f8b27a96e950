/** An executor for deterministic tests: runs are scripts of events; what is alive is counted. */
import { Context, Deferred, Effect, Layer, Stream } from "effect"
import { Outcome } from "../../schemas/Outcome.ts"
import { type Assignment, Executor, type RunEvent, type StopRequest } from "./Executor.ts"

/** One run as a script; `stop` is done when somebody asked for its end. */
export type Script = (assignment: Assignment, stop: Deferred.Deferred<StopRequest>) => Stream.Stream<RunEvent>

/** The last event of a script. */
export const finished = (outcome: Outcome): RunEvent => ({
  _tag: "Finished",
  outcome,
  usage: { phases: [] }
})

/** Runs at once: prints the text on stdout, and exits. */
export const printing = (text: string, code = 0): Script => () =>
  Stream.make<ReadonlyArray<RunEvent>>(
    { _tag: "Ready", place: "/fake", provisionMicros: 1000 },
    { _tag: "PhaseStarted", phase: "run" },
    { _tag: "Output", stream: "stdout", bytes: new TextEncoder().encode(text) },
    { _tag: "PhaseEnded", phase: "run", usage: { phase: "run", wallMicros: 5 } },
    finished(Outcome.cases.Exited.make({ phase: "run", code }))
  )

/** What was run. */
export class ExecutorTest extends Context.Service<ExecutorTest, {
  /** Runs whose scope is open. */
  readonly alive: Effect.Effect<number>
  /** All that were begun, oldest first. */
  readonly begun: Effect.Effect<ReadonlyArray<Assignment>>
}>()("stoker/layers/executor/ExecutorTest") {}

/** Runs are what the script makes of them. */
export const layerTest = (script: Script): Layer.Layer<Executor | ExecutorTest> => {
  let alive = 0
  const begun: Array<Assignment> = []
  const executor = Executor.of({
    adopt: () => Effect.undefined,
    start: Effect.fnUntraced(function*(assignment) {
      begun.push(assignment)
      const stop = yield* Deferred.make<StopRequest>()
      yield* Effect.acquireRelease(Effect.sync(() => alive += 1), () => Effect.sync(() => alive -= 1))
      return {
        events: script(assignment, stop),
        stop: (request) => Effect.asVoid(Deferred.succeed(stop, request))
      }
    })
  })
  return Layer.merge(
    Layer.succeed(Executor, executor),
    Layer.succeed(ExecutorTest, { alive: Effect.sync(() => alive), begun: Effect.sync(() => [...begun]) })
  )
}
