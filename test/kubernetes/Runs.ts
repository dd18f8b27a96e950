/** Runs on a cluster of the test's own, with all that was heard of each. */
import { Effect, Exit, Fiber, Layer, Scope, Stream } from "effect"
import { type Assignment, Executor, type Run, type RunEvent } from "../../src/layers/executor/Executor.ts"
import * as KubernetesExecutor from "../../src/layers/executor/KubernetesExecutor.ts"
import * as KubernetesLive from "../../src/layers/kubernetes/KubernetesLive.ts"
import { jobName } from "../../src/layers/kubernetes/Manifest.ts"
import type { Container } from "../../src/schemas/Container.ts"
import { type Job, keyOf } from "../../src/schemas/Job.ts"
import type { Limits } from "../../src/schemas/Limits.ts"
import type { SandboxClass } from "../../src/schemas/SandboxClass.ts"
import { classOf, makeJob, programOf, world as makeWorld } from "./World.ts"

export interface Options {
  readonly job?: Job
  readonly attempt?: number
  readonly firstAttempt?: number
  readonly limits?: Partial<Limits>
  readonly class?: SandboxClass
  /** Before the next event is taken. */
  readonly onEvent?: (event: RunEvent, run: Run) => Effect.Effect<unknown>
}

const text = (parts: ReadonlyArray<Uint8Array>) => Buffer.concat(parts).toString()

/** What came of a run. */
const ranOf = (events: ReadonlyArray<RunEvent>, job: string) => {
  const last = events.at(-1)
  if (last?._tag !== "Finished") throw new Error("no outcome")
  const output = (stream: "stdout" | "stderr") =>
    events.flatMap((event) => event._tag === "Output" && event.stream === stream ? [event.bytes] : [])
  const ready = events.find((event) => event._tag === "Ready")
  return {
    events,
    job,
    outcome: last.outcome,
    usage: last.usage,
    place: ready?.place,
    stdout: text(output("stdout")),
    stderr: text(output("stderr"))
  }
}
export type Ran = ReturnType<typeof ranOf>

/** An executor as one worker has it; closing its scope is that worker's death. */
export const worker = Effect.gen(function*() {
  const layer = KubernetesExecutor.layer.pipe(Layer.provide(Layer.fresh(KubernetesLive.layer())))
  return yield* Effect.provideContext(Executor, yield* Layer.build(Layer.fresh(layer)))
})

export const assignmentOf = (kubeconfig: string, container: Container, options: Options = {}): Assignment => ({
  job: options.job ?? makeJob(),
  attempt: options.attempt ?? 1,
  ...(options.firstAttempt === undefined ? {} : { firstAttempt: options.firstAttempt }),
  program: programOf(container, options.limits),
  class: options.class ?? classOf(kubeconfig)
})

/** Begins a run as a worker does: what is there is gone on with. */
export const begin = Effect.fnUntraced(function*(executor: Executor["Service"], assignment: Assignment) {
  const adopted = yield* executor.adopt(assignment)
  return adopted ?? (yield* executor.start(assignment))
})

export const follow = Effect.fnUntraced(function*(
  executor: Executor["Service"],
  assignment: Assignment,
  onEvent: Options["onEvent"] = () => Effect.void
) {
  const scope = yield* Scope.make()
  yield* Effect.addFinalizer(() => Scope.close(scope, Exit.void))
  const run = yield* begin(executor, assignment).pipe(Scope.provide(scope))
  const events: Array<RunEvent> = []
  const following = yield* run.events.pipe(
    Stream.runForEach((event) => {
      events.push(event)
      return onEvent(event, run)
    }),
    Effect.forkScoped({ startImmediately: true })
  )
  const { container } = assignment.program
  const job = container === undefined ? "" : jobName(container, keyOf(assignment.job), assignment.attempt)
  return {
    run,
    events,
    job,
    /** The worker loses its claim, or dies: no outcome, no stop. */
    leave: Effect.andThen(Fiber.interrupt(following), Scope.close(scope, Exit.void)),
    ended: Effect.gen(function*() {
      yield* Fiber.join(following)
      yield* Scope.close(scope, Exit.void)
      return ranOf(events, job)
    })
  }
})

/** A cluster and one worker. */
export const runs = Effect.gen(function*() {
  const world = yield* makeWorld
  const executor = yield* worker
  const start = (container: Container, options: Options = {}) =>
    follow(executor, assignmentOf(world.kubeconfig, container, options), options.onEvent)
  const run = (container: Container, options: Options = {}) =>
    Effect.flatMap(start(container, options), ({ ended }) => ended)
  return { world, executor, start, run }
})
