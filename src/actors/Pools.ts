/**
 * Where the executor gets its sandboxes: from the pool of the class, or made when asked for if the class has none; all
 * of them within one budget of the host.
 */
import { Context, Deferred, Effect, Layer, Schema, type Scope } from "effect"
import { Settings } from "../layers/config/Settings.ts"
import { type Driver, Drivers, ProvisionFailed, type Sandbox } from "../layers/sandbox/Sandbox.ts"
import { Sandboxes } from "../layers/sandbox/Sandboxes.ts"
import { LimitNotHeld, type Limits, needsOf, resolve } from "../schemas/Limits.ts"
import type { HostBudget } from "../schemas/PoolConfig.ts"
import { isCluster, type SandboxClass } from "../schemas/SandboxClass.ts"
import type { ActorFailed } from "./Actor.ts"
import * as Pool from "./Pool.ts"
import * as PoolBudget from "./PoolBudget.ts"
import * as PoolCold from "./PoolCold.ts"
import type { Disk } from "./PoolProvision.ts"
import { noCounts, type PoolStats } from "./PoolStats.ts"

/** A pool that could never work: the worker does not start with it. */
export class PoolMisconfigured extends Schema.TaggedError<PoolMisconfigured>()("PoolMisconfigured", {
  class: Schema.String,
  reason: Schema.String,
  remedy: Schema.String
}) {
  override get message() {
    return `the pool of class ${this.class} cannot be: ${this.reason}. ${this.remedy}`
  }
}

/** The pools at one moment. */
export interface PoolsStats {
  /** Every class the worker has, and others that were asked for, in the order in which they became known. */
  readonly classes: ReadonlyArray<PoolStats>
  readonly limits: HostBudget
  /** Charged now: ready, used, being made, being removed. */
  readonly held: PoolBudget.Held
}

/** The worker's stock of sandboxes. */
export class Pools extends Context.Service<Pools, {
  readonly stats: Effect.Effect<PoolsStats>
  /** Answers whoever waits, makes no more, and returns when what nobody took is gone. What is used goes on. */
  readonly drain: Effect.Effect<void>
  /** Waits for the end nobody wants: fails when a pool was given up. */
  readonly failure: Effect.Effect<never, ActorFailed>
}>()("stoker/actors/Pools") {}

/** One class, however its sandboxes come. */
interface Source {
  readonly take: (
    sandboxClass: SandboxClass,
    disk: Disk
  ) => Effect.Effect<Sandbox, ProvisionFailed, Scope.Scope>
  readonly stats: Effect.Effect<PoolStats>
}

const noDriver = (sandboxClass: SandboxClass, known: Iterable<string>) =>
  new ProvisionFailed({
    driver: sandboxClass.driver,
    step: "driver",
    reason: `class ${sandboxClass.name} wants driver ${sandboxClass.driver}, which this worker does not have`,
    remedy: `Configure the class with one of: ${[...known].join(", ")}.`
  })

const accepts = Effect.fnUntraced(function*(driver: Driver | undefined, sandboxClass: SandboxClass, limits: Limits) {
  // Without a driver there is no sandbox: `take` says so.
  if (driver === undefined) return
  if (driver.accepts !== undefined) return yield* driver.accepts(sandboxClass, limits)
  for (const [need, limit] of needsOf(limits)) {
    if (driver.capabilities.has(need)) continue
    return yield* new LimitNotHeld({
      limit,
      reason: `driver ${driver.name} does not hold it`,
      remedy: "Leave it out, or use a sandbox class of another driver."
    })
  }
})

/** A class whose every job would be refused is told before the first one comes. */
const checkDefaults = ({ ceiling, defaults, ...sandboxClass }: SandboxClass, driver: Driver | undefined) =>
  resolve(ceiling, defaults, {}).pipe(
    Effect.flatMap((limits) => accepts(driver, { ...sandboxClass, ceiling, defaults }, limits)),
    Effect.mapError((error) =>
      new PoolMisconfigured({
        class: sandboxClass.name,
        reason: `its default limits: ${error.message}`,
        remedy: error._tag === "LimitNotHeld" ? error.remedy : "Raise the ceiling, or lower the default."
      })
    )
  )

const chargeOf = ({ ceiling: { cpus, memoryBytes }, pool }: SandboxClass) => pool?.charge ?? { cpus, memoryBytes }

/** A driver has deadlines of its own; this one keeps a driver that forgets them from holding a job for ever. */
const COLD_LIMIT_MS = 120_000

/** Every take is a cold start; the class that is asked for may have a root of the job's own. */
const onDemand = (name: SandboxClass["name"], driver: Driver, cold: PoolCold.PoolCold): Source => {
  const counts = noCounts()
  return {
    take: (sandboxClass: SandboxClass, disk: Disk) =>
      cold.take({ sandboxClass, driver, disk, limitMs: COLD_LIMIT_MS }, chargeOf(sandboxClass), counts),
    stats: Effect.sync(() => ({
      ...counts,
      class: name,
      pooled: false,
      idle: 0,
      waiting: counts.blocked,
      target: 0
    }))
  }
}

const make = Effect.fnUntraced(function*(limits: HostBudget) {
  const { classes } = yield* Settings
  const drivers = new Map((yield* Drivers).map((driver) => [driver.name, driver]))
  const budget = PoolBudget.make(limits)
  const cold = PoolCold.make(budget)
  const sources = new Map<string, Source>()
  const pools: Array<Pool.Pool> = []
  const failed = yield* Deferred.make<never, ActorFailed>()

  for (const sandboxClass of classes) {
    const { name, pool: config } = sandboxClass
    if (isCluster(sandboxClass.driver)) continue
    const driver = drivers.get(sandboxClass.driver)
    if (!budget.admits(chargeOf(sandboxClass))) {
      const { cpus, memoryBytes } = chargeOf(sandboxClass)
      return yield* new PoolMisconfigured({
        class: name,
        reason: `one sandbox counts for ${memoryBytes} bytes and ${cpus} cores, more than the whole budget`,
        remedy: "Raise the budget, lower the class's ceiling, or set a lower charge in its pool."
      })
    }
    yield* checkDefaults(sandboxClass, driver)
    if (driver === undefined || config === undefined) continue
    const pool = yield* Pool.start({ sandboxClass, config, driver, budget, cold })
    pools.push(pool)
    sources.set(name, {
      // With a root of the job's own nothing was made ahead.
      take: (asked, disk) => asked.root === sandboxClass.root ? pool.take(disk) : pool.takeCold(asked, disk),
      stats: pool.stats
    })
    yield* pool.ended.pipe(Effect.catch((error) => Deferred.fail(failed, error)), Effect.forkScoped)
  }

  const sourceOf = ({ driver: wanted, name }: SandboxClass) => {
    const known = sources.get(name)
    const driver = drivers.get(wanted)
    if (known !== undefined || driver === undefined) return known
    const source = onDemand(name, driver, cold)
    sources.set(name, source)
    return source
  }
  for (const sandboxClass of classes) sourceOf(sandboxClass)

  return Context.make(
    Sandboxes,
    Sandboxes.of({
      take: (sandboxClass, disk) => {
        const source = sourceOf(sandboxClass)
        return source === undefined
          ? Effect.fail(noDriver(sandboxClass, drivers.keys()))
          : source.take(sandboxClass, disk)
      },
      accepts: (sandboxClass, limits) => accepts(drivers.get(sandboxClass.driver), sandboxClass, limits)
    })
  ).pipe(Context.add(
    Pools,
    Pools.of({
      stats: Effect.gen(function*() {
        const stats = yield* Effect.forEach(sources.values(), (source) => source.stats)
        return { classes: stats, limits, held: budget.held() }
      }),
      drain: Effect.andThen(
        cold.drain,
        Effect.forEach(pools, (pool) => pool.drain, { concurrency: "unbounded", discard: true })
      ),
      failure: Deferred.await(failed)
    })
  ))
})

/** Pools for the worker's classes. Refilling begins at once; closing the layer drains it. */
export const layer = (
  budget: HostBudget
): Layer.Layer<Pools | Sandboxes, PoolMisconfigured, Drivers | Settings> => Layer.effectContext(make(budget))
