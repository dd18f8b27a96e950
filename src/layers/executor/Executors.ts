/** Which executor a job has: the one of its class's driver. Sandboxes are for every driver that is no cluster. */
import { Effect, Layer, type Scope } from "effect"
import { isCluster } from "../../schemas/SandboxClass.ts"
import { type Assignment, Executor } from "./Executor.ts"

const closing = Effect.fnUntraced(function*<E, R>(layer: Layer.Layer<Executor, E, R>) {
  return yield* Effect.provideContext(Executor, yield* Layer.build(layer))
})

/** `cluster` is built where a class of the worker has one, so that nobody else loads what it needs. */
export const layer = <E, R, E2, R2>(options: {
  readonly sandbox: Layer.Layer<Executor, E, R>
  /** Absent: no class has a cluster. */
  readonly cluster: Layer.Layer<Executor, E2, R2> | undefined
}): Layer.Layer<Executor, E | E2, R | R2> =>
  Layer.effect(
    Executor,
    Effect.gen(function*(): Effect.fn.Return<Executor["Service"], E | E2, R | R2 | Scope.Scope> {
      const sandbox = yield* closing(options.sandbox)
      const cluster = options.cluster === undefined ? sandbox : yield* closing(options.cluster)
      const of = ({ class: { driver } }: Assignment) => isCluster(driver) ? cluster : sandbox
      return Executor.of({
        start: (assignment) => of(assignment).start(assignment),
        adopt: (assignment) => of(assignment).adopt(assignment)
      })
    })
  )
