/**
 * Keeps sandboxes of one class ready and replaces each one that is taken. Single use: what was taken never comes back.
 *
 * A take that finds one ready is one synchronous step. Everything else is done by one loop that looks at the state
 * whenever it is rung or a time has come; it may fail and start again at any point, for the state outlives it. What
 * takes long (making, checking, removing a sandbox) runs beside it and rings when it is done.
 */
import { Cause, Clock, Context, Deferred, Effect, Exit, Fiber, Queue, Random, Scope } from "effect"
import { within } from "../layers/Release.ts"
import { type Driver, ProvisionFailed, type Sandbox } from "../layers/sandbox/Sandbox.ts"
import type { PoolConfig } from "../schemas/PoolConfig.ts"
import type { SandboxClass } from "../schemas/SandboxClass.ts"
import * as Actor from "./Actor.ts"
import type { Claimant, PoolBudget } from "./PoolBudget.ts"
import type { PoolCold } from "./PoolCold.ts"
import * as PoolDemand from "./PoolDemand.ts"
import * as PoolDepartures from "./PoolDepartures.ts"
import * as PoolFault from "./PoolFault.ts"
import * as PoolHealth from "./PoolHealth.ts"
import { type Disk, draining, failureOf, handOver, type Order, provisionInto, TEARDOWN } from "./PoolProvision.ts"
import * as PoolSize from "./PoolSize.ts"
import { noCounts, type PoolStats } from "./PoolStats.ts"
import * as PoolStock from "./PoolStock.ts"

export interface Pool {
  /** A sandbox that closes with the taker's scope. Whoever is interrupted leaves its place, and what it was given. */
  readonly take: (disk: Disk) => Effect.Effect<Sandbox, ProvisionFailed, Scope.Scope>
  /** One of the class with another root, which is made for the taker and counted as one that no warm one could be. */
  readonly takeCold: (
    other: SandboxClass,
    disk: Disk
  ) => Effect.Effect<Sandbox, ProvisionFailed, Scope.Scope>
  readonly stats: Effect.Effect<PoolStats>
  /** No more are made or handed out; those that wait are answered. Returns when those nobody took are gone. */
  readonly drain: Effect.Effect<void>
  /** Fails when the loop has failed too often: nothing is handed out any more. */
  readonly ended: Effect.Effect<void, Actor.ActorFailed>
}

export interface PoolOptions {
  readonly sandboxClass: SandboxClass
  readonly config: PoolConfig
  readonly driver: Driver
  readonly budget: PoolBudget
  /** For jobs no warm sandbox can serve. */
  readonly cold: PoolCold
}

const intensity: Actor.RestartIntensity = { times: 5, within: "1 minute", backoff: "100 millis" }

/** A warm workspace of the class. */
const warmDisk = ({ config, sandboxClass: { defaults } }: PoolOptions): Disk =>
  config.disk ?? { bytes: defaults.diskBytes, inodes: defaults.diskInodes }

const serves = ({ diskFit }: PoolConfig, warm: Disk, asked: Disk) =>
  diskFit === "exact"
    ? asked.bytes === warm.bytes && asked.inodes === warm.inodes
    : asked.bytes <= warm.bytes && asked.inodes <= warm.inodes

const gaveUp = (driver: string, failed: Actor.ActorFailed) =>
  new ProvisionFailed({
    driver,
    step: "ready",
    reason: failed.message,
    remedy: "This is a defect of Stoker; please report it with the worker's log, and restart the worker.",
    cause: failed
  })

/** Starts a pool that lives at most as long as the scope. */
export const start = Effect.fnUntraced(function*(options: PoolOptions): Effect.fn.Return<Pool, never, Scope.Scope> {
  const { budget, cold, config, driver, sandboxClass } = options
  const name = `pool ${sandboxClass.name}`
  const disk = warmDisk(options)
  const charge = config.charge ?? { memoryBytes: sandboxClass.ceiling.memoryBytes, cpus: sandboxClass.ceiling.cpus }
  const order: Order = { sandboxClass, driver, disk, limitMs: config.provisionMs }

  const clock = yield* Clock.Clock
  const now = () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
  /** The mailbox. What is to be done follows from the state, so one "look" that waits stands for any number. */
  const mailbox = yield* Queue.bounded<"look">(1)
  const ring = () => void Queue.offerUnsafe(mailbox, "look")

  const stock = PoolStock.make()
  const counts = noCounts()
  const demand = PoolDemand.make(config.rateWindowMs)
  const size = PoolSize.make(config, demand, now())
  const fault = PoolFault.make(name, config)
  const departures = PoolDepartures.make(name, charge, budget, counts)
  const makers = new Set<Fiber.Fiber<void>>()
  /** For the stock. A cold start of this class is in the counts as well, and comes to nobody who waits here. */
  let making = 0
  /** No refill before, while one stands ready. */
  let refillAtMs = 0
  /** Why nothing is handed out any more. */
  let refusal: ProvisionFailed | undefined

  /** Takes care that it goes. Not in the stock any more, or never there. */
  const letGo = (scope: Scope.Closeable) => {
    departures.add(scope)
    ring()
  }
  const dismiss = (warm: PoolStock.Warm, why: "lost" | "expired" | "givenUp") => {
    if (!stock.remove(warm)) return false
    counts[why] += 1
    letGo(warm.scope)
    return true
  }
  /** To whoever waits, else to the stock. */
  const put = (warm: PoolStock.Warm) => {
    if (refusal !== undefined) return letGo(warm.scope)
    if (stock.waiting() === 0 && stock.idle.length >= config.maximum) return letGo(warm.scope)
    if (!stock.add(warm)) budget.rebalance()
  }

  const onLost = (warm: PoolStock.Warm, reason: string) =>
    Effect.suspend(() =>
      dismiss(warm, "lost")
        ? Effect.logWarning(`sandbox ${warm.sandbox.id} of ${name} was lost before it was used: ${reason}`)
        : Effect.void
    )

  const stocked = Effect.fnUntraced(function*(sandbox: Sandbox, scope: Scope.Closeable, beganMs: number) {
    const nowMs = now()
    demand.provisioned(nowMs - beganMs)
    yield* fault.recovered
    const early = (config.maxAgeMs / 10) * (yield* Random.next)
    const warm: PoolStock.Warm = {
      sandbox,
      scope,
      expiresAtMs: beganMs + config.maxAgeMs - early,
      checkedAtMs: nowMs
    }
    yield* PoolHealth.watch(warm, onLost)
    put(warm)
  })

  /** Makes one sandbox, charged already; its end, whichever, is known to the state when the fiber ends. */
  const makeOne = Effect.uninterruptibleMask((restore) =>
    Effect.gen(function*() {
      const scope = Scope.makeUnsafe()
      const beganMs = now()
      const made = yield* Effect.exit(provisionInto(scope, order, restore))
      making -= 1
      counts.making -= 1
      if (Exit.isSuccess(made)) {
        yield* stocked(made.value, scope, beganMs)
      } else {
        letGo(scope)
        if (!Cause.hasInterruptsOnly(made.cause)) {
          counts.failures += 1
          yield* fault.failed(failureOf(driver.name, made.cause), beganMs, now())
        }
      }
      ring()
    })
  )

  const claimant: Claimant = { charge, ring }
  /** Whether one more is to be made now, and whether a taker waits for it. */
  const wanted = (nowMs: number): "urgent" | "refill" | undefined => {
    if (refusal !== undefined) return undefined
    if (fault.error() !== undefined) {
      // One attempt at a time; and it goes on trying when nobody waits, to know when the trouble is over.
      if (making > 0 || !fault.mayTry(nowMs)) return undefined
      if (stock.waiting() > 0) return "urgent"
      return stock.idle.length < Math.max(1, size.target()) ? "refill" : undefined
    }
    if (stock.waiting() > making) return "urgent"
    if (stock.idle.length > 0 && nowMs < refillAtMs) return undefined
    const coming = stock.idle.length + making - stock.waiting()
    return coming < size.target() && making < config.parallel ? "refill" : undefined
  }

  const provision = Effect.gen(function*() {
    let want = wanted(now())
    if (want !== "urgent") budget.withdraw(claimant)
    while (want !== undefined && budget.claim(claimant, want === "urgent")) {
      making += 1
      counts.making += 1
      PoolDepartures.track(makers, yield* Effect.forkDetach(makeOne, { startImmediately: true }))
      want = wanted(now())
    }
  })

  const check = (warm: PoolStock.Warm) =>
    PoolHealth.check(warm, config.healthMs, onLost, () => {
      warm.checkedAtMs = now()
      ring()
    })

  /** All rules, once. Never waits. */
  const look = Effect.gen(function*() {
    const nowMs = now()
    for (const warm of stock.idle.filter(({ expiresAtMs }) => expiresAtMs <= nowMs)) dismiss(warm, "expired")
    for (const warm of stock.idle.filter(({ checkedAtMs }) => checkedAtMs + config.healthEveryMs <= nowMs)) {
      yield* check(warm)
    }
    const answer = fault.answer(nowMs)
    if (answer !== undefined) stock.refuse(answer)
    yield* fault.tell(nowMs)
    const surplus = size.resize(nowMs, stock.idle.length) ? stock.pick() : undefined
    if (surplus !== undefined) letGo(surplus.scope)
    yield* departures.seeThrough
    yield* provision
  })

  /** When to look again if nobody rings; undefined: only then. */
  const pauseMs = () => {
    const nowMs = now()
    const times = stock.idle.flatMap((warm) => [warm.expiresAtMs, warm.checkedAtMs + config.healthEveryMs])
    times.push(refillAtMs, ...size.shrinksAtMs(stock.idle.length), ...fault.changesAtMs())
    const next = Math.min(...times.filter((time) => time > nowMs))
    return next === Infinity ? undefined : Math.ceil(next - nowMs)
  }

  const loop = Effect.gen(function*() {
    while (true) {
      if (refusal !== undefined) return
      yield* Effect.uninterruptible(look)
      const pause = pauseMs()
      yield* pause === undefined ? Queue.take(mailbox) : Effect.timeoutOption(Queue.take(mailbox), pause)
    }
  })

  /** Nothing is made or handed out from now on. */
  const close = (error: ProvisionFailed) => {
    refusal ??= error
    stock.refuse(refusal)
    budget.withdraw(claimant)
    for (let warm = stock.pick(); warm !== undefined; warm = stock.pick()) letGo(warm.scope)
  }
  /** Whatever is left that nobody took is gone when this ends. */
  const settle = Effect.gen(function*() {
    yield* Fiber.interruptAll([...makers])
    yield* departures.seeThrough
    yield* departures.gone
  }).pipe(within(`${name}'s sandboxes`, TEARDOWN))
  const drain = Effect.andThen(Effect.sync(() => close(draining(driver.name))), settle)

  const leaveBudget = budget.join({
    charge,
    minimum: config.minimum,
    idle: () => stock.idle.length,
    giveUp: () => {
      const [oldest] = stock.idle
      if (oldest !== undefined) dismiss(oldest, "givenUp")
    }
  })
  const ended = yield* Deferred.make<void, Actor.ActorFailed>()
  yield* Actor.restarting(name, intensity, loop).pipe(
    Effect.tapError((error) => Effect.andThen(Effect.sync(() => close(gaveUp(driver.name, error))), settle)),
    Effect.annotateLogs({ actor: name }),
    Effect.onExit((exit) =>
      Deferred.done(ended, Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause) ? Exit.void : exit)
    ),
    Effect.forkScoped({ startImmediately: true })
  )
  yield* Effect.addFinalizer(() => Effect.andThen(drain, Effect.sync(leaveBudget)))

  const hand = (warm: PoolStock.Warm, taker: Scope.Scope) =>
    handOver(warm.sandbox, warm.scope, taker, charge, budget, counts)

  const unfit = (asked: Disk) =>
    Effect.andThen(
      Effect.logInfo(
        `a job wants a workspace of ${asked.bytes} bytes and ${asked.inodes} inodes, ${name} keeps ${disk.bytes} and ` +
          `${disk.inodes}: cold start`
      ),
      cold.take({ ...order, disk: asked }, charge, counts)
    )

  const miss = (taker: Scope.Scope, restore: <A, E>(effect: Effect.Effect<A, E>) => Effect.Effect<A, E>) => {
    const waiter = stock.wait()
    return Effect.matchCauseEffect(restore(Deferred.await(waiter.answer)), {
      onSuccess: (warm) => hand(warm, taker),
      onFailure: (cause) => {
        const given = stock.leave(waiter)
        if (given !== undefined) put(given)
        ring()
        // After the end nobody looks any more.
        return Effect.andThen(refusal === undefined ? Effect.void : departures.seeThrough, Effect.failCause(cause))
      }
    })
  }

  const take: Pool["take"] = (asked) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.withFiber<Sandbox, ProvisionFailed, Scope.Scope>((fiber) => {
        if (refusal !== undefined) return Effect.fail(refusal)
        if (!serves(config, disk, asked)) return restore(unfit(asked))
        const taker = Context.getUnsafe(fiber.context, Scope.Scope)
        const nowMs = now()
        demand.arrived(nowMs)
        ring()
        for (let warm = stock.pick(); warm !== undefined; warm = stock.pick()) {
          if (warm.expiresAtMs > nowMs) {
            counts.hits += 1
            // Not put off further by the next hit.
            if (nowMs >= refillAtMs) refillAtMs = nowMs + config.refillPauseMs
            return hand(warm, taker)
          }
          counts.expired += 1
          letGo(warm.scope)
        }
        counts.misses += 1
        const answer = fault.answer(nowMs)
        return answer === undefined ? miss(taker, restore) : Effect.fail(answer)
      })
    )

  return {
    take,
    takeCold: (other, asked) =>
      refusal === undefined
        ? cold.take({ ...order, sandboxClass: other, disk: asked }, charge, counts)
        : Effect.fail(refusal),
    drain,
    ended: Deferred.await(ended),
    stats: Effect.sync(() => {
      const lastProvisionMs = demand.lastMs()
      const error = fault.error()
      return {
        ...counts,
        class: sandboxClass.name,
        pooled: true,
        idle: stock.idle.length,
        waiting: stock.waiting() + counts.blocked,
        target: size.target(),
        ...(lastProvisionMs === undefined ? {} : { lastProvisionMs }),
        ...(error === undefined
          ? {}
          : { failing: { forMs: fault.forMs(now()), reason: error.reason, remedy: error.remedy } })
      }
    })
  }
})
