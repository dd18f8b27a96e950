/** Sandboxes of a pool that go without having been taken. */
import { Effect, Exit, Fiber, type Scope } from "effect"
import type { PoolCharge } from "../schemas/PoolConfig.ts"
import type { PoolBudget } from "./PoolBudget.ts"
import { beginLeaving } from "./PoolProvision.ts"
import type { PoolCounts } from "./PoolStats.ts"

export interface PoolDepartures {
  /** Begins: it counts as leaving from now on, and goes with the next `seeThrough`. */
  readonly add: (scope: Scope.Closeable) => void
  /** Lets all go that were added; their teardowns run beside the caller. */
  readonly seeThrough: Effect.Effect<void>
  /** Waits until those that go are gone. */
  readonly gone: Effect.Effect<void>
}

export const make = (name: string, charge: PoolCharge, budget: PoolBudget, counts: PoolCounts): PoolDepartures => {
  const running = new Set<Fiber.Fiber<void>>()
  let begun: Array<Effect.Effect<void>> = []
  const seeThrough = Effect.suspend(() => {
    const now = begun
    begun = []
    return Effect.forEach(
      now,
      (teardown) =>
        Effect.ignoreCause(teardown, { log: "Warn", message: `a sandbox of ${name} did not end well` }).pipe(
          Effect.forkDetach({ startImmediately: true }),
          Effect.map((fiber) => track(running, fiber))
        ),
      { discard: true }
    )
  })
  return {
    add: (scope) => void begun.push(beginLeaving(scope, charge, budget, counts)(Exit.void)),
    seeThrough,
    gone: Effect.suspend(() => Effect.asVoid(Fiber.awaitAll([...running])))
  }
}

/** In the set until it ends. */
export const track = (fibers: Set<Fiber.Fiber<void>>, fiber: Fiber.Fiber<void>) => {
  fibers.add(fiber)
  fiber.addObserver(() => fibers.delete(fiber))
}
