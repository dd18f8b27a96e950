/** Pools of a fake driver, and takers whose scopes the test holds. */
import { Context, Effect, Exit, type Fiber, Layer, Scope } from "effect"
import * as Pools from "../../src/actors/Pools.ts"
import * as Settings from "../../src/layers/config/Settings.ts"
import type { ProvisionFailed, Sandbox } from "../../src/layers/sandbox/Sandbox.ts"
import { Sandboxes } from "../../src/layers/sandbox/Sandboxes.ts"
import type { FakeDriver } from "../../src/layers/sandbox/SandboxTest.ts"
import * as SandboxTest from "../../src/layers/sandbox/SandboxTest.ts"
import { type HostBudget, type PoolConfig, standardPool } from "../../src/schemas/PoolConfig.ts"
import type { SandboxClass } from "../../src/schemas/SandboxClass.ts"
import { standardClass, standardConfig } from "../../src/schemas/WorkerConfig.ts"

/** A class with a pool like the standard one, but for what the test says. */
export const pooled = (name: string, pool: Partial<PoolConfig> = {}, driver: SandboxClass["driver"] = "oci") => ({
  ...standardClass(name, driver),
  pool: { ...standardPool, ...pool }
})

export const diskOf = ({ defaults }: SandboxClass) => ({ bytes: defaults.diskBytes, inodes: defaults.diskInodes })

/** A taker with a sandbox. */
export interface Taken {
  readonly sandbox: Sandbox
  readonly close: Effect.Effect<void>
}

export const open = Effect.fnUntraced(function*(
  fakes: ReadonlyArray<FakeDriver>,
  classes: readonly [SandboxClass, ...Array<SandboxClass>],
  budget: HostBudget = {}
) {
  const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
  const layer = Pools.layer(budget).pipe(
    Layer.provide(Layer.merge(SandboxTest.layer(...fakes), Settings.layer({ ...standardConfig, classes })))
  )
  const context = yield* Layer.buildWithScope(layer, scope)
  const pools = Context.get(context, Pools.Pools)
  const sandboxes = Context.get(context, Sandboxes)
  const take = (sandboxClass: SandboxClass, disk = diskOf(sandboxClass)): Effect.Effect<Taken, ProvisionFailed> =>
    Effect.uninterruptibleMask((restore) =>
      Effect.gen(function*() {
        const own = yield* Scope.make()
        const sandbox = yield* restore(Scope.provide(sandboxes.take(sandboxClass, disk), own)).pipe(
          Effect.onError(() => Scope.close(own, Exit.void))
        )
        return { sandbox, close: Scope.close(own, Exit.void) }
      })
    )
  const statsOf = (sandboxClass: SandboxClass) =>
    Effect.flatMap(pools.stats, ({ classes }) => {
      const found = classes.find((stats) => stats.class === sandboxClass.name)
      return found === undefined ? Effect.die(`no stats of ${sandboxClass.name}`) : Effect.succeed(found)
    })
  return { pools, take, statsOf, close: Scope.close(scope, Exit.void) }
})

/** Lets everything that can go on without time go on. */
export const settled = Effect.repeat(Effect.yieldNow, { times: 100 })

/** A taker that runs beside the test. */
export const begin = <A, E>(effect: Effect.Effect<A, E>) =>
  Effect.tap(Effect.forkChild(effect, { startImmediately: true }), () => settled)

export const hasEnded = (fiber: Fiber.Fiber<unknown, unknown>) => fiber.pollUnsafe() !== undefined
