/** One sandbox made, charged from its first kernel object until its scope has closed. */
import { Cause, Effect, type Exit, Fiber, Option, Scope } from "effect"
import { type Driver, ProvisionFailed, type Sandbox } from "../layers/sandbox/Sandbox.ts"
import type { PoolCharge } from "../schemas/PoolConfig.ts"
import type { SandboxClass } from "../schemas/SandboxClass.ts"
import type { PoolBudget } from "./PoolBudget.ts"
import type { PoolCounts } from "./PoolStats.ts"

export interface Disk {
  readonly bytes: number
  readonly inodes: number
}

/** A scope's close is waited for so long; a driver's own deadlines add up to less. */
export const TEARDOWN = "15 seconds"

/** What is made, and where it is counted. */
export interface Order {
  readonly sandboxClass: SandboxClass
  readonly driver: Driver
  readonly disk: Disk
  /** Given up after this, from when the driver is prepared for the class. */
  readonly limitMs: number
}

/** The worker takes no more; the same words whoever hears them. */
export const draining = (driver: string) =>
  new ProvisionFailed({
    driver,
    step: "ready",
    reason: "this worker is ending and makes no more sandboxes",
    remedy: "Send the job again, or leave it to its queue: another worker takes it."
  })

const tooSlow = (driver: string, limitMs: number) =>
  new ProvisionFailed({
    driver,
    step: "ready",
    reason: `it was not ready within ${limitMs} ms`,
    remedy: "Is the host overloaded? Run `stoker doctor`, or raise provisionMs of the class's pool if it has one."
  })

/** The failure in a cause; a defect of a driver becomes one. */
export const failureOf = (driver: string, cause: Cause.Cause<ProvisionFailed>) =>
  Option.getOrElse(Cause.findErrorOption(cause), () => {
    const defect = Cause.squash(cause)
    return new ProvisionFailed({
      driver,
      step: "ready",
      reason: `internal error: ${String(defect)}`,
      remedy: "This is a defect of Stoker; please report it with the worker's log.",
      cause: defect
    })
  })

/**
 * Provisions below `scope`, which the caller closes however this ends. The deadline and an interruption are heard at
 * once, even by a driver that cannot be interrupted now: what it makes after all goes when `scope` closes. To be
 * called uninterruptibly; `restore` lets the waiting be interrupted.
 */
export const provisionInto = Effect.fnUntraced(function*(
  scope: Scope.Closeable,
  { disk, driver, limitMs, sandboxClass }: Order,
  restore: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
) {
  if (driver.prepare !== undefined) yield* restore(driver.prepare(sandboxClass))
  const inner = Scope.forkUnsafe(scope)
  const provision = Effect.suspend(() => driver.provision(sandboxClass, disk))
  const fiber = yield* Effect.forkDetach(Scope.provide(provision, inner), { startImmediately: true })
  // Closes before `inner`, so that nothing is made in a scope that is closed already.
  yield* Scope.addFinalizer(scope, Fiber.interrupt(fiber))
  return yield* restore(Effect.timeoutOrElse(Fiber.join(fiber), {
    duration: limitMs,
    orElse: () => Effect.fail(tooSlow(driver.name, limitMs))
  }))
})

/** Counts and charges the teardown from its beginning, which is now, to its end, which is the returned effect's. */
export const beginLeaving = (
  scope: Scope.Closeable,
  charge: PoolCharge,
  budget: PoolBudget,
  counts: PoolCounts
): (exit: Exit.Exit<unknown, unknown>) => Effect.Effect<void> => {
  counts.leaving += 1
  budget.leaving(charge)
  const gone = Effect.sync(() => {
    counts.leaving -= 1
    budget.release(charge)
  })
  return (exit) => Effect.ensuring(Scope.close(scope, exit), gone)
}

/** A sandbox and its charge, as a taker holds it: gone with the taker's scope. */
export const handOver = (
  sandbox: Sandbox,
  scope: Scope.Closeable,
  taker: Scope.Scope,
  charge: PoolCharge,
  budget: PoolBudget,
  counts: PoolCounts
): Effect.Effect<Sandbox> => {
  counts.used += 1
  return Effect.as(
    Scope.addFinalizerExit(taker, (exit) => {
      counts.used -= 1
      return beginLeaving(scope, charge, budget, counts)(exit)
    }),
    sandbox
  )
}
