import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Logger, References } from "effect"
import { TestClock } from "effect/testing"
import { ProvisionFailed } from "../../src/layers/sandbox/Sandbox.ts"
import * as SandboxTest from "../../src/layers/sandbox/SandboxTest.ts"
import type { PoolConfig } from "../../src/schemas/PoolConfig.ts"
import { begin, diskOf, hasEnded, open, pooled, settled } from "../pool/Fixture.ts"

/** Provision takes this long. */
const slow = (millis: number) => ({ provision: () => Effect.sleep(millis) })

/** A configuration that breaks whoever reads it, so many times: a bug of the loop, which reads it in each round. */
const flaky = (config: PoolConfig, failing: { failures: number }): PoolConfig =>
  Object.defineProperty({ ...config }, "minimum", {
    get: () => {
      if (failing.failures-- > 0) throw new Error("a bug")
      return config.minimum
    }
  })

describe("a pool", () => {
  it.effect("makes its minimum before anybody asks, and hands one out without waiting", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver(slow(100))
      const a = pooled("a", { minimum: 3, maximum: 5, parallel: 2 })
      const { statsOf, take } = yield* open([fake], [a])
      yield* settled
      assert.strictEqual(fake.begun(), 2)
      yield* TestClock.adjust("200 millis")
      assert.deepInclude(yield* statsOf(a), { idle: 3, making: 0, used: 0, target: 3, lastProvisionMs: 100 })
      const { sandbox } = yield* take(a)
      assert.strictEqual(sandbox.id, "fake1")
      assert.deepInclude(yield* statsOf(a), { hits: 1, misses: 0, used: 1, idle: 2 })
    }))

  it.effect("begins a refill the moment one is taken, as many at once as it may", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver(slow(100))
      const a = pooled("a", { minimum: 4, maximum: 4, parallel: 3 })
      const { statsOf, take } = yield* open([fake], [a])
      yield* TestClock.adjust("1 second")
      yield* take(a)
      yield* settled
      assert.deepInclude(yield* statsOf(a), { idle: 3, making: 1 })
      yield* Effect.all([take(a), take(a), take(a)])
      yield* settled
      assert.deepInclude(yield* statsOf(a), { idle: 0, making: 3 })
      yield* TestClock.adjust("100 millis")
      yield* TestClock.adjust("100 millis")
      assert.deepInclude(yield* statsOf(a), { idle: 4, making: 0, used: 4, hits: 4 })
    }))

  it.effect("lets the job begin before it refills, if told so and others stand ready; a later hit puts off nothing", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver(slow(100))
      const a = pooled("a", { minimum: 3, maximum: 3, refillPauseMs: 5 })
      const { statsOf, take } = yield* open([fake], [a])
      yield* TestClock.adjust("1 second")
      yield* take(a)
      yield* TestClock.adjust("4 millis")
      yield* take(a)
      assert.deepInclude(yield* statsOf(a), { idle: 1, making: 0 })
      yield* TestClock.adjust("1 millis")
      assert.deepInclude(yield* statsOf(a), { idle: 1, making: 2 })
      yield* TestClock.adjust("100 millis")
      for (let n = 0; n < 3; n++) yield* take(a)
      yield* settled
      assert.deepInclude(yield* statsOf(a), { idle: 0, making: 2 })
    }))

  it.effect("never hands out a sandbox twice, and closes it with its taker's scope", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver()
      const a = pooled("a", { minimum: 1, maximum: 1 })
      const { statsOf, take } = yield* open([fake], [a])
      const ids = new Set<string>()
      for (let n = 0; n < 20; n++) {
        yield* settled
        const { close, sandbox } = yield* take(a)
        ids.add(sandbox.id)
        assert.isTrue(fake.alive.has(sandbox.id))
        yield* close
        assert.isFalse(fake.alive.has(sandbox.id))
      }
      yield* settled
      assert.strictEqual(ids.size, 20)
      assert.strictEqual(fake.held(), 1)
      assert.deepInclude(yield* statsOf(a), { hits: 20, used: 0, leaving: 0 })
    }))

  it.effect("makes more than its minimum for those who wait, and serves them in their order", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver(slow(100))
      const a = pooled("a", { minimum: 0, maximum: 0, parallel: 1 })
      const { statsOf, take } = yield* open([fake], [a])
      const order: Array<number> = []
      const takers = yield* Effect.forEach(
        [0, 1, 2, 3, 4],
        (n) => begin(Effect.tap(take(a), () => Effect.sync(() => order.push(n))))
      )
      assert.deepInclude(yield* statsOf(a), { waiting: 5, making: 5, misses: 5 })
      yield* TestClock.adjust("100 millis")
      const taken = yield* Fiber.joinAll(takers)
      assert.deepStrictEqual(order, [0, 1, 2, 3, 4])
      assert.deepStrictEqual(taken.map(({ sandbox }) => sandbox.id), ["fake1", "fake2", "fake3", "fake4", "fake5"])
      assert.deepInclude(yield* statsOf(a), { waiting: 0, making: 0, used: 5, idle: 0 })
    }))

  it.effect("gives what was made for an interrupted taker to the next one, and keeps the last for later", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver(slow(100))
      const a = pooled("a", { minimum: 0, maximum: 2 })
      const { statsOf, take } = yield* open([fake], [a])
      const first = yield* begin(take(a))
      yield* TestClock.adjust("50 millis")
      const second = yield* begin(take(a))
      yield* Fiber.interrupt(first)
      yield* TestClock.adjust("50 millis")
      assert.strictEqual((yield* Fiber.join(second)).sandbox.id, "fake1")
      yield* TestClock.adjust("50 millis")
      assert.deepInclude(yield* statsOf(a), { waiting: 0, idle: 1, used: 1, making: 0 })
      assert.strictEqual((yield* take(a)).sandbox.id, "fake2")
    }))

  it.effect("loses nothing when a taker is interrupted in the very moment in which it is served", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver(slow(100))
      const a = pooled("a", { minimum: 0, maximum: 4 })
      const { close, statsOf, take } = yield* open([fake], [a])
      let served = 0
      for (let n = 0; n < 60; n++) {
        // So slow a taker can be interrupted between any two of its steps.
        const taker = yield* begin(Effect.provideService(take(a), References.MaxOpsBeforeYield, 3))
        const moment = Effect.andThen(Effect.repeat(Effect.yieldNow, { times: n }), Fiber.interrupt(taker))
        yield* Effect.all([TestClock.adjust("100 millis"), moment], { concurrency: 2 })
        const exit = yield* Fiber.await(taker)
        if (exit._tag === "Success") {
          served += 1
          yield* exit.value.close
        }
        yield* settled
        const { idle, leaving, making, used, waiting } = yield* statsOf(a)
        assert.deepStrictEqual({ leaving, used, waiting }, { leaving: 0, used: 0, waiting: 0 })
        assert.strictEqual(fake.held(), idle + making)
      }
      assert.isAbove(served, 0)
      yield* close
      assert.strictEqual(fake.held(), 0)
    }))

  it.effect("interrupts a provision at its deadline, counts it as a failure and tries again", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver({ provision: (n) => n === 1 ? Effect.never : Effect.void })
      const a = pooled("a", { minimum: 1, maximum: 1, provisionMs: 500, backoffMs: 100 })
      const { statsOf } = yield* open([fake], [a])
      yield* TestClock.adjust("499 millis")
      assert.deepInclude(yield* statsOf(a), { making: 1, failures: 0 })
      yield* TestClock.adjust("1 millis")
      const stats = yield* statsOf(a)
      assert.deepInclude(stats, { making: 0, failures: 1, idle: 0 })
      assert.include(stats.failing?.reason, "not ready within 500 ms")
      assert.strictEqual(fake.held(), 0)
      yield* TestClock.adjust("100 millis")
      assert.deepInclude(yield* statsOf(a), { idle: 1, failures: 1 })
      assert.isUndefined((yield* statsOf(a)).failing)
    }))

  it.effect("hears the deadline of a driver that cannot be interrupted, and charges it until it lets go", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver({
        provision: (n) => n === 1 ? Effect.uninterruptible(Effect.sleep("1 hour")) : Effect.void
      })
      const a = pooled("a", { minimum: 1, maximum: 1, provisionMs: 500, backoffMs: 100 })
      const { pools, statsOf } = yield* open([fake], [a], { sandboxes: 2 })
      yield* TestClock.adjust("600 millis")
      assert.deepInclude(yield* statsOf(a), { idle: 1, leaving: 1, failures: 1 })
      assert.strictEqual((yield* pools.stats).held.sandboxes, 2)
      yield* TestClock.adjust("1 hour")
      assert.deepInclude(yield* statsOf(a), { leaving: 0 })
      assert.strictEqual((yield* pools.stats).held.sandboxes, 1)
    }))

  it.effect("backs off further with each failure in a row, side by side ones counted once", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver({ provision: () => Effect.fail(SandboxTest.failed("no image")) })
      const a = pooled("a", { minimum: 4, maximum: 4, parallel: 4, backoffMs: 1000, backoffMaxMs: 4000 })
      const { statsOf } = yield* open([fake], [a])
      yield* settled
      // The first failure stops the others; from then on it tries one at a time.
      const first = fake.begun()
      assert.isAtMost(first, 4)
      const times: Array<number> = []
      for (let at = 0; at < 20_000; at += 100) {
        const before = fake.begun()
        yield* TestClock.adjust("100 millis")
        for (let n = before; n < fake.begun(); n++) times.push(at + 100)
      }
      const pauses = times.map((time, index) => time - (times[index - 1] ?? 0))
      const bounds = [1000, 2000, 4000, 4000, 4000]
      bounds.forEach((most, index) => {
        assert.isAtMost(pauses[index] ?? Infinity, most + 100)
        assert.isAtLeast(pauses[index] ?? 0, most / 2)
      })
      assert.strictEqual((yield* statsOf(a)).failures, fake.begun())
    }))

  it.effect("lets takers wait through a short trouble, answers them at once in a long one, and recovers by itself", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver({ provision: () => Effect.fail(SandboxTest.failed("disk full")) })
      const a = pooled("a", { minimum: 1, maximum: 1, backoffMs: 100, backoffMaxMs: 1000, failFastMs: 5000 })
      const { statsOf, take } = yield* open([fake], [a])
      const early = yield* begin(take(a))
      const late = yield* begin(take(a))
      yield* TestClock.adjust("4900 millis")
      assert.isFalse(hasEnded(early))
      yield* TestClock.adjust("100 millis")
      assert.include((yield* Effect.flip(Fiber.join(early))).reason, "disk full")
      assert.include((yield* Effect.flip(Fiber.join(late))).reason, "disk full")
      assert.include((yield* Effect.flip(take(a))).reason, "disk full")
      const failing = (yield* statsOf(a)).failing
      assert.strictEqual(failing?.forMs, 5000)
      fake.script.provision = () => Effect.void
      yield* TestClock.adjust("1 second")
      assert.deepInclude(yield* statsOf(a), { idle: 1 })
      yield* take(a)
    }))

  it.effect("answers at once when the driver itself is not there, or its image was never built: waiting would not help", () =>
    Effect.gen(function*() {
      const unbuilt = new ProvisionFailed({
        driver: "qemu",
        step: "image",
        reason: "there is none of that name",
        remedy: "Make one.",
        isLasting: true
      })
      for (const absent of [SandboxTest.failed("no crun", "oci", "driver"), unbuilt]) {
        const fake = SandboxTest.makeDriver({ provision: () => Effect.fail(absent) })
        const a = pooled("a", { minimum: 1, maximum: 1, failFastMs: 60_000 })
        const { take } = yield* open([fake], [a])
        yield* settled
        assert.strictEqual(yield* Effect.flip(take(a)), absent)
      }
    }))

  it.effect("that keeps none warm finds out by itself too that a long trouble is over", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver({ provision: () => Effect.fail(SandboxTest.failed("disk full")) })
      const a = pooled("a", { minimum: 0, maximum: 0, backoffMs: 100, backoffMaxMs: 1000, failFastMs: 0 })
      const { take } = yield* open([fake], [a])
      assert.include((yield* Effect.flip(take(a))).reason, "disk full")
      fake.script.provision = () => Effect.void
      yield* TestClock.adjust("1 second")
      yield* take(a)
      assert.strictEqual(fake.alive.size, 1)
    }))

  it.effect("says in the log once that it fails, once that jobs fail, and once that it is over", () => {
    const lines: Array<string> = []
    const logger = Logger.make(({ message }) => void lines.push(String(message)))
    return Effect.gen(function*() {
      const fake = SandboxTest.makeDriver({ provision: () => Effect.fail(SandboxTest.failed("disk full")) })
      const a = pooled("a", { minimum: 2, maximum: 2, backoffMs: 100, backoffMaxMs: 100, failFastMs: 1000 })
      const { statsOf } = yield* open([fake], [a])
      yield* TestClock.adjust("10 seconds")
      fake.script.provision = () => Effect.void
      yield* TestClock.adjust("10 seconds")
      assert.isAbove((yield* statsOf(a)).failures, 50)
      assert.lengthOf(lines, 3)
      assert.match(lines[0] ?? "", /pool a: .*disk full.*Tries again/)
      assert.match(lines[1] ?? "", /pool a has made no sandbox for 1000 ms.*disk full/)
      assert.match(lines[2] ?? "", /pool a makes sandboxes again, after \d+ failures/)
    }).pipe(Effect.provide(Logger.layer([logger])))
  })

  it.effect("takes a defect of its driver for a failure", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver({ provision: (n) => n === 1 ? Effect.die("oops") : Effect.void })
      const a = pooled("a", { minimum: 1, maximum: 1 })
      const { statsOf } = yield* open([fake], [a])
      yield* settled
      assert.include((yield* statsOf(a)).failing?.reason, "oops")
      yield* TestClock.adjust("1 second")
      assert.deepInclude(yield* statsOf(a), { idle: 1, failures: 1 })
    }))

  it.effect("replaces a sandbox at once that is lost while it stands ready", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver()
      const a = pooled("a", { minimum: 2, maximum: 2 })
      const { statsOf, take } = yield* open([fake], [a])
      yield* settled
      for (const id of [...fake.alive.keys()].slice(0, 1)) fake.lose(id)
      const ids: ReadonlyArray<string> = [(yield* take(a)).sandbox.id, (yield* take(a)).sandbox.id]
      assert.notInclude(ids, "fake1")
      yield* settled
      assert.deepInclude(yield* statsOf(a), { lost: 1, idle: 2 })
      assert.isFalse([...fake.alive.keys()].some((id) => id === "fake1"))
    }))

  it.effect("finds out at its rounds that a guest is lost or silent, when nobody tells", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver({
        tellsLoss: false,
        answer: (id) => id === "fake2" ? Effect.never : Effect.void
      })
      const a = pooled("a", { minimum: 3, maximum: 3, healthEveryMs: 5000, healthMs: 1000 })
      const { statsOf } = yield* open([fake], [a])
      yield* settled
      for (const id of fake.alive.keys()) if (id === "fake1") fake.lose(id)
      yield* TestClock.adjust("4999 millis")
      assert.deepInclude(yield* statsOf(a), { lost: 0, idle: 3 })
      yield* TestClock.adjust("1 millis")
      assert.deepInclude(yield* statsOf(a), { lost: 1, idle: 3 })
      yield* TestClock.adjust("1 second")
      assert.deepInclude(yield* statsOf(a), { lost: 2, idle: 3 })
      assert.deepStrictEqual([...fake.alive.keys()], ["fake3", "fake4", "fake5"])
      yield* TestClock.adjust("1 minute")
      assert.deepInclude(yield* statsOf(a), { lost: 2, idle: 3 })
    }))

  it.effect("leaves a sandbox to its taker whose check was under way when it was taken", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver({ answer: () => Effect.never })
      const a = pooled("a", { minimum: 1, maximum: 1, healthEveryMs: 1000, healthMs: 1000 })
      const { statsOf, take } = yield* open([fake], [a])
      yield* TestClock.adjust("1500 millis")
      const { sandbox } = yield* take(a)
      yield* TestClock.adjust("500 millis")
      assert.isTrue(fake.alive.has(sandbox.id))
      assert.strictEqual((yield* statsOf(a)).lost, 0)
    }))

  it.effect("replaces what is too old before it is handed out", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver()
      const a = pooled("a", { minimum: 3, maximum: 3, maxAgeMs: 60_000 })
      const { statsOf, take } = yield* open([fake], [a])
      yield* TestClock.adjust("53 seconds")
      assert.deepInclude(yield* statsOf(a), { expired: 0, idle: 3 })
      yield* TestClock.adjust("7 seconds")
      assert.deepInclude(yield* statsOf(a), { expired: 3, idle: 3 })
      assert.notInclude(["fake1", "fake2", "fake3"], (yield* take(a)).sandbox.id)
    }))

  it.effect("hands out nothing too old even while its loop is down", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver()
      const a = pooled("a", { minimum: 2, maximum: 2, maxAgeMs: 1000 })
      const failing = { failures: 0 }
      const { statsOf, take } = yield* open([fake], [{ ...a, pool: flaky(a.pool, failing) }])
      yield* TestClock.adjust("580 millis")
      // Down at 580, 680 and 880, and then until 1280.
      failing.failures = 3
      yield* take(a)
      yield* TestClock.adjust("420 millis")
      assert.deepInclude(yield* statsOf(a), { idle: 1, expired: 0 })
      const taker = yield* begin(take(a))
      assert.isFalse(hasEnded(taker))
      assert.deepInclude(yield* statsOf(a), { idle: 0, expired: 1, waiting: 1 })
      yield* TestClock.adjust("10 seconds")
      assert.isTrue(hasEnded(taker))
    }))

  it.effect("grows with arrivals times provision time up to its maximum, and shrinks slowly", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver(slow(1000))
      const a = pooled("a", { minimum: 1, maximum: 6, parallel: 8, rateWindowMs: 10_000, shrinkMs: 5000 })
      const { statsOf, take } = yield* open([fake], [a])
      yield* TestClock.adjust("1 second")
      assert.deepInclude(yield* statsOf(a), { target: 1, idle: 1 })
      // Two a second, each one second in the making: two arrive meanwhile, and their spread.
      for (let n = 0; n < 80; n++) {
        const { close } = yield* Effect.tap(begin(take(a)), () => TestClock.adjust("500 millis")).pipe(
          Effect.flatMap(Fiber.join)
        )
        yield* close
      }
      const busy = yield* statsOf(a)
      assert.isAtLeast(busy.target, 4)
      assert.isAtMost(busy.target, 6)
      assert.isAbove(busy.hits, 70)
      yield* TestClock.adjust("5 seconds")
      assert.isAtLeast((yield* statsOf(a)).target, busy.target - 1)
      yield* TestClock.adjust("5 minutes")
      assert.deepInclude(yield* statsOf(a), { target: 1, idle: 1, making: 0 })
      assert.strictEqual(fake.held(), 1)
    }))

  it.effect("with a minimum of 0 holds nothing once nobody asks any more", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver(slow(100))
      const a = pooled("a", { minimum: 0, maximum: 4 })
      const { take } = yield* open([fake], [a])
      for (let n = 0; n < 30; n++) {
        const taker = yield* begin(take(a))
        yield* TestClock.adjust("100 millis")
        yield* (yield* Fiber.join(taker)).close
      }
      assert.isAbove(fake.held(), 0)
      yield* TestClock.adjust("10 minutes")
      assert.strictEqual(fake.held(), 0)
    }))

  it.effect("makes a sandbox apart for a job that wants another workspace, and says so", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver()
      const a = pooled("a", { minimum: 1, maximum: 1 })
      const b = pooled("b", { minimum: 1, maximum: 1, diskFit: "atLeast" })
      const { statsOf, take } = yield* open([fake], [a, b])
      yield* settled
      const { bytes, inodes } = diskOf(a)
      const larger = { bytes: bytes + 1, inodes }
      const smaller = { bytes: bytes - 1, inodes }
      const large = yield* take(a, larger)
      assert.deepStrictEqual(fake.alive.get(large.sandbox.id)?.disk, larger)
      const small = yield* take(a, smaller)
      assert.deepStrictEqual(fake.alive.get(small.sandbox.id)?.disk, smaller)
      assert.deepInclude(yield* statsOf(a), { unfit: 2, hits: 0, used: 2, idle: 1 })
      yield* take(b, larger)
      const roomy = yield* take(b, smaller)
      assert.deepStrictEqual(fake.alive.get(roomy.sandbox.id)?.disk, diskOf(b))
      assert.deepInclude(yield* statsOf(b), { unfit: 1, hits: 1 })
      yield* large.close
      assert.deepInclude(yield* statsOf(a), { used: 1, leaving: 0 })
    }))

  it.effect("makes one for a job that waits, also while another's is made apart", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver({ provision: (n) => n === 1 ? Effect.sleep("1 minute") : Effect.void })
      const a = pooled("a", { minimum: 0, maximum: 1, provisionMs: 120_000 })
      const { take } = yield* open([fake], [a])
      const apart = yield* begin(take(a, { ...diskOf(a), bytes: 65_536 }))
      assert.strictEqual(fake.begun(), 1)
      const waiting = yield* begin(take(a))
      assert.isTrue(hasEnded(waiting))
      assert.isFalse(hasEnded(apart))
      yield* TestClock.adjust("1 minute")
      assert.isTrue(hasEnded(apart))
    }))

  it.effect("that drains makes no more, removes what stands ready, and answers whoever waits or comes", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver({ provision: (n) => n <= 2 ? Effect.void : Effect.never })
      const a = pooled("a", { minimum: 2, maximum: 2 })
      const { pools, statsOf, take } = yield* open([fake], [a])
      yield* settled
      const used = yield* take(a)
      const drained = yield* begin(Effect.andThen(take(a), Effect.andThen(take(a), take(a))))
      assert.deepInclude(yield* statsOf(a), { waiting: 1, used: 2, idle: 0 })
      yield* pools.drain
      const error = yield* Effect.flip(Fiber.join(drained))
      assert.include(error.reason, "ending")
      assert.include((yield* Effect.flip(take(a))).reason, "ending")
      assert.deepInclude(yield* statsOf(a), { making: 0, idle: 0, used: 2, waiting: 0, leaving: 0 })
      assert.strictEqual(fake.held(), 2)
      yield* used.close
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(fake.held(), 1)
    }))

  it.effect("whose scope closes leaves nothing that nobody took", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver({ provision: (n) => n <= 2 ? Effect.void : Effect.never })
      const a = pooled("a", { minimum: 4, maximum: 4 })
      const { close } = yield* open([fake], [a])
      yield* settled
      assert.strictEqual(fake.held(), 4)
      yield* close
      assert.strictEqual(fake.held(), 0)
    }))

  it.effect("closes in time although a sandbox does not end", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver({ release: () => Effect.never })
      const a = pooled("a", { minimum: 2, maximum: 2 })
      const { close } = yield* open([fake], [a])
      yield* settled
      const closing = yield* begin(close)
      yield* TestClock.adjust("15 seconds")
      assert.isTrue(hasEnded(closing))
    }))

  it.effect("whose loop fails starts it again with all it has; one that fails on is given up, and its takers hear", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver()
      const a = pooled("a", { minimum: 1, maximum: 1 })
      const failing = { failures: 0 }
      const { pools, statsOf, take } = yield* open([fake], [{ ...a, pool: flaky(a.pool, failing) }])
      yield* settled
      failing.failures = 1
      yield* take(a)
      yield* settled
      assert.deepInclude(yield* statsOf(a), { idle: 0, used: 1 })
      yield* TestClock.adjust("100 millis")
      assert.deepInclude(yield* statsOf(a), { idle: 1, used: 1 })
      failing.failures = Infinity
      const watching = yield* begin(Effect.flip(pools.failure))
      yield* take(a)
      const waiting = yield* begin(Effect.flip(take(a)))
      yield* TestClock.adjust("1 minute")
      assert.include((yield* Fiber.join(waiting)).reason, "pool a failed")
      assert.strictEqual((yield* Fiber.join(watching)).actor, "pool a")
      assert.include((yield* Effect.flip(take(a))).reason, "pool a failed")
      assert.strictEqual(fake.held(), 2)
    }))
})
