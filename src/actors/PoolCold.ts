/** Sandboxes made for one taker, when it asks: for classes without a pool, and for jobs no warm one can serve. */
import { Cause, Effect, Fiber, Queue, Scope } from "effect"
import { within } from "../layers/Release.ts"
import { ProvisionFailed, type Sandbox } from "../layers/sandbox/Sandbox.ts"
import type { PoolCharge } from "../schemas/PoolConfig.ts"
import type { Claimant, PoolBudget } from "./PoolBudget.ts"
import { beginLeaving, draining, failureOf, handOver, type Order, provisionInto, TEARDOWN } from "./PoolProvision.ts"
import type { PoolCounts } from "./PoolStats.ts"

export interface PoolCold {
  /** Waits for room, then makes one. */
  readonly take: (
    order: Order,
    charge: PoolCharge,
    counts: PoolCounts
  ) => Effect.Effect<Sandbox, ProvisionFailed, Scope.Scope>
  /** Whoever waits for room, or asks from now on, is answered that the worker ends. */
  readonly drain: Effect.Effect<void>
}

const tooLarge = ({ driver, sandboxClass }: Order) =>
  new ProvisionFailed({
    driver: driver.name,
    step: "driver",
    reason: `one sandbox of class ${sandboxClass.name} is more than this worker's whole budget`,
    remedy: "Raise the budget, or lower the class's ceiling."
  })

export const make = (budget: PoolBudget): PoolCold => {
  const waiting = new Set<Claimant>()
  let open = true

  const room = Effect.fnUntraced(function*(
    order: Order,
    charge: PoolCharge,
    restore: <A>(effect: Effect.Effect<A>) => Effect.Effect<A>
  ) {
    const bell = yield* Queue.sliding<void>(1)
    const claimant: Claimant = { charge, ring: () => void Queue.offerUnsafe(bell, undefined) }
    while (true) {
      if (!open) {
        budget.withdraw(claimant)
        return yield* draining(order.driver.name)
      }
      if (budget.claim(claimant, true)) return
      waiting.add(claimant)
      yield* restore(Queue.take(bell)).pipe(
        Effect.ensuring(Effect.sync(() => waiting.delete(claimant))),
        Effect.onInterrupt(() => Effect.sync(() => budget.withdraw(claimant)))
      )
    }
  })

  const take: PoolCold["take"] = (order, charge, counts) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.gen(function*() {
        const taker = yield* Effect.scope
        counts.unfit += 1
        if (!budget.admits(charge)) return yield* tooLarge(order)
        counts.blocked += 1
        yield* room(order, charge, restore).pipe(Effect.ensuring(Effect.sync(() => counts.blocked -= 1)))
        counts.making += 1
        const scope = Scope.makeUnsafe()
        const made = yield* Effect.exit(provisionInto(scope, order, restore))
        counts.making -= 1
        if (made._tag === "Success") return yield* handOver(made.value, scope, taker, charge, budget, counts)
        // Torn down from now on; only the end of the taker's scope waits for it.
        const leaving = beginLeaving(scope, charge, budget, counts)(made)
        const fiber = yield* Effect.forkDetach(leaving, { startImmediately: true })
        yield* Scope.addFinalizer(taker, within("a sandbox that was not made", TEARDOWN)(Fiber.join(fiber)))
        if (Cause.hasInterruptsOnly(made.cause)) return yield* made
        counts.failures += 1
        return yield* failureOf(order.driver.name, made.cause)
      })
    )

  return {
    take,
    drain: Effect.sync(() => {
      open = false
      for (const { ring } of waiting) ring()
    })
  }
}
