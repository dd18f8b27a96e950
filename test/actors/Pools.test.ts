import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer } from "effect"
import { TestClock } from "effect/testing"
import * as Pools from "../../src/actors/Pools.ts"
import * as Settings from "../../src/layers/config/Settings.ts"
import * as SandboxTest from "../../src/layers/sandbox/SandboxTest.ts"
import { standardClass, standardConfig } from "../../src/schemas/WorkerConfig.ts"
import { begin, hasEnded, open, pooled, settled } from "../pool/Fixture.ts"

const GiB = 1024 ** 3

describe("the pools of a worker", () => {
  it.effect("never hold more than the budget; whoever finds no room waits for it", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver({ provision: () => Effect.sleep(100) })
      const a = pooled("a", { minimum: 2, maximum: 4 })
      const { pools, statsOf, take } = yield* open([fake], [a], { sandboxes: 3 })
      const takers = yield* Effect.forEach([1, 2, 3, 4, 5], () => begin(take(a)))
      yield* TestClock.adjust("1 second")
      const [first, second, third, fourth, fifth] = takers
      assert.deepStrictEqual(takers.map(hasEnded), [true, true, true, false, false])
      assert.deepInclude(yield* statsOf(a), { used: 3, waiting: 2, making: 0 })
      for (const [done, next] of [[first, fourth], [second, fifth]] as const) {
        if (done === undefined || next === undefined) return yield* Effect.die("five takers")
        yield* (yield* Fiber.join(done)).close
        yield* TestClock.adjust("100 millis")
        assert.isTrue(hasEnded(next))
      }
      if (third === undefined) return yield* Effect.die("five takers")
      yield* (yield* Fiber.join(third)).close
      yield* TestClock.adjust("100 millis")
      assert.deepInclude(yield* statsOf(a), { used: 2, waiting: 0, idle: 1 })
      assert.strictEqual(fake.peak(), 3)
      assert.strictEqual((yield* pools.stats).held.sandboxes, 3)
    }))

  it.effect("charge a sandbox until its teardown has ended", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver({ release: () => Effect.sleep("3 seconds") })
      const a = pooled("a", { minimum: 0, maximum: 0 })
      const { pools, statsOf, take } = yield* open([fake], [a], { sandboxes: 1 })
      const { close } = yield* take(a)
      const closing = yield* begin(close)
      const next = yield* begin(take(a))
      yield* TestClock.adjust("2999 millis")
      assert.deepInclude(yield* statsOf(a), { used: 0, leaving: 1, waiting: 1 })
      assert.deepStrictEqual((yield* pools.stats).held, {
        memoryBytes: a.ceiling.memoryBytes,
        cpus: a.ceiling.cpus,
        sandboxes: 1
      })
      assert.isFalse(hasEnded(next))
      yield* TestClock.adjust("1 millis")
      yield* Fiber.join(closing)
      yield* Fiber.join(next)
      assert.strictEqual(fake.peak(), 1)
    }))

  it.effect("count memory and cores, by the class's ceiling or by its own charge", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver()
      const whole = pooled("whole", { minimum: 9, maximum: 9 })
      const light = pooled("light", { minimum: 9, maximum: 9, charge: { memoryBytes: 0, cpus: 0.1 } })
      const byMemory = yield* open([fake], [whole], { memoryBytes: 4 * whole.ceiling.memoryBytes })
      yield* settled
      assert.deepInclude(yield* byMemory.statsOf(whole), { idle: 4 })
      const byCores = yield* open([fake], [light], { cpus: 0.3, memoryBytes: 1 })
      yield* settled
      assert.deepInclude(yield* byCores.statsOf(light), { idle: 3 })
      assert.deepStrictEqual((yield* byCores.pools.stats).held, { memoryBytes: 0, cpus: 0.3, sandboxes: 3 })
    }))

  it.effect("give up what stands ready in one class for a job of another that finds no room", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver()
      const a = pooled("a", { minimum: 3, maximum: 3 })
      const b = pooled("b", { minimum: 0, maximum: 0 })
      const { statsOf, take } = yield* open([fake], [a, b], { sandboxes: 3 })
      yield* settled
      assert.deepInclude(yield* statsOf(a), { idle: 3 })
      const { close } = yield* take(b)
      yield* settled
      assert.deepInclude(yield* statsOf(a), { idle: 2, givenUp: 1 })
      // What the job leaves is refilled again.
      yield* close
      yield* settled
      assert.deepInclude(yield* statsOf(a), { idle: 3 })
      assert.strictEqual(fake.peak(), 3)
    }))

  it.effect("give up only as much as makes room, and nothing that would not", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver()
      const small = { charge: { memoryBytes: GiB, cpus: 1 } }
      const a = pooled("a", { minimum: 4, maximum: 4, parallel: 4, ...small })
      const b = pooled("b", { minimum: 0, maximum: 0, charge: { memoryBytes: 3 * GiB, cpus: 1 } })
      const { statsOf, take } = yield* open([fake], [a, b], { memoryBytes: 4 * GiB })
      yield* settled
      const one = yield* take(a)
      const two = yield* take(a)
      const large = yield* begin(take(b))
      assert.deepInclude(yield* statsOf(a), { idle: 2, used: 2, givenUp: 0, making: 0 })
      yield* one.close
      yield* settled
      assert.isTrue(hasEnded(large))
      assert.deepInclude(yield* statsOf(a), { idle: 0, used: 1, givenUp: 2, making: 0 })
      yield* two.close
      yield* settled
      assert.deepInclude(yield* statsOf(a), { idle: 1, used: 0 })
    }))

  it.effect("let no refill take the room for which a job of another class waits", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver()
      const a = pooled("a", { minimum: 2, maximum: 2 })
      const b = pooled("b", { minimum: 0, maximum: 0 })
      const { statsOf, take } = yield* open([fake], [a, b], { sandboxes: 2 })
      yield* settled
      const one = yield* take(a)
      const two = yield* take(a)
      const other = yield* begin(take(b))
      yield* one.close
      yield* settled
      assert.isTrue(hasEnded(other))
      assert.deepInclude(yield* statsOf(a), { idle: 0, making: 0, used: 1 })
      yield* two.close
      yield* settled
      assert.deepInclude(yield* statsOf(a), { idle: 1, used: 0 })
    }))

  it.effect("take turns when several classes wait, so that none starves", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver()
      const a = pooled("a", { minimum: 0, maximum: 0 })
      const b = pooled("b", { minimum: 0, maximum: 0 })
      const { take } = yield* open([fake], [a, b], { sandboxes: 1 })
      const order: Array<string> = []
      let current = yield* take(a)
      const job = (name: "a" | "b") =>
        take(name === "a" ? a : b).pipe(Effect.map((taken) => {
          order.push(name)
          current = taken
        }))
      for (const name of ["a", "a", "a", "b", "b"] as const) yield* begin(job(name))
      for (let n = 0; n < 5; n++) {
        yield* current.close
        yield* settled
      }
      assert.deepStrictEqual(order, ["a", "b", "a", "b", "a"])
    }))

  it.effect("serve everybody for whom one large sandbox made room", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver()
      const none = { minimum: 0, maximum: 0 }
      const large = pooled("large", { ...none, charge: { memoryBytes: 2 * GiB, cpus: 0 } })
      const a = pooled("a", { ...none, charge: { memoryBytes: GiB, cpus: 0 } })
      const b = pooled("b", { ...none, charge: { memoryBytes: GiB, cpus: 0 } })
      const { take } = yield* open([fake], [large, a, b], { memoryBytes: 2 * GiB })
      const { close } = yield* take(large)
      const waiting = [yield* begin(take(a)), yield* begin(take(b))]
      yield* close
      yield* settled
      assert.deepStrictEqual(waiting.map(hasEnded), [true, true])
    }))

  it.effect("are not held up by a taker that has left its place in the queue for room", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver()
      const a = pooled("a", { minimum: 1, maximum: 1 })
      const b = pooled("b", { minimum: 0, maximum: 0 })
      const { statsOf, take } = yield* open([fake], [a, b], { sandboxes: 1 })
      yield* settled
      const { close } = yield* take(a)
      const gone = yield* begin(take(b))
      yield* Fiber.interrupt(gone)
      yield* close
      yield* settled
      assert.deepInclude(yield* statsOf(a), { idle: 1 })
    }))

  it.effect("give up a refill as well that was under way when a job of another class came", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver({ provision: () => Effect.sleep(100) })
      const a = pooled("a", { minimum: 1, maximum: 1 })
      const b = pooled("b", { minimum: 0, maximum: 0 })
      const { statsOf, take } = yield* open([fake], [a, b], { sandboxes: 1 })
      yield* TestClock.adjust("50 millis")
      const taker = yield* begin(take(b))
      yield* TestClock.adjust("150 millis")
      assert.isTrue(hasEnded(taker))
      assert.deepInclude(yield* statsOf(a), { givenUp: 1, idle: 0, making: 0 })
    }))

  it.effect("make sandboxes of a class without a pool when asked, within the same budget, for who still waits", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver({ provision: () => Effect.sleep(100) })
      const a = pooled("a", { minimum: 2, maximum: 2 })
      const bare = standardClass("bare", "oci")
      const { statsOf, take } = yield* open([fake], [a, bare], { sandboxes: 2 })
      yield* TestClock.adjust("1 second")
      const first = yield* begin(take(bare))
      assert.deepInclude(yield* statsOf(a), { idle: 1, givenUp: 1 })
      const second = yield* begin(take(bare))
      const third = yield* begin(take(bare))
      assert.deepInclude(yield* statsOf(bare), { pooled: false, making: 2, waiting: 1, unfit: 3 })
      yield* Fiber.interrupt(third)
      yield* TestClock.adjust("100 millis")
      assert.deepInclude(yield* statsOf(bare), { making: 0, waiting: 0, used: 2 })
      yield* (yield* Fiber.join(first)).close
      yield* (yield* Fiber.join(second)).close
      yield* TestClock.adjust("1 second")
      assert.deepInclude(yield* statsOf(a), { idle: 2 })
      assert.strictEqual(fake.peak(), 2)
    }))

  it.effect("clear away what a failed or interrupted cold start has begun", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver({
        provision: (n) => n === 1 ? Effect.fail(SandboxTest.failed("no")) : Effect.never
      })
      const bare = standardClass("bare", "oci")
      const { pools, statsOf, take } = yield* open([fake], [bare])
      assert.include((yield* Effect.flip(take(bare))).reason, "no")
      const hanging = yield* begin(take(bare))
      assert.strictEqual(fake.held(), 1)
      yield* Fiber.interrupt(hanging)
      assert.strictEqual(fake.held(), 0)
      assert.deepInclude(yield* statsOf(bare), { failures: 1, used: 0, making: 0, leaving: 0 })
      assert.strictEqual((yield* pools.stats).held.sandboxes, 0)
    }))

  it.effect("answer a cold start that waits for room when they drain", () =>
    Effect.gen(function*() {
      const fake = SandboxTest.makeDriver()
      const bare = standardClass("bare", "oci")
      const { pools, take } = yield* open([fake], [bare], { sandboxes: 1 })
      const { close } = yield* take(bare)
      const waiting = yield* begin(take(bare))
      yield* pools.drain
      assert.include((yield* Effect.flip(Fiber.join(waiting))).reason, "ending")
      yield* close
      assert.include((yield* Effect.flip(take(bare))).reason, "ending")
      assert.strictEqual(fake.held(), 0)
    }))

  it.effect("name the driver a class wants and this worker lacks", () =>
    Effect.gen(function*() {
      const { take } = yield* open([SandboxTest.makeDriver()], [pooled("vm", {}, "qemu")])
      const error = yield* Effect.flip(take(pooled("vm", {}, "qemu")))
      assert.include(error.message, "class vm wants driver qemu")
      assert.include(error.remedy, "oci")
    }))

  it.effect("do not start when one sandbox of a class is more than the whole budget", () =>
    Effect.gen(function*() {
      const settings = Settings.layer({ ...standardConfig, classes: [pooled("a")] })
      const drivers = SandboxTest.layer(SandboxTest.makeDriver())
      const layer = Pools.layer({ memoryBytes: 1024 }).pipe(Layer.provide(Layer.merge(settings, drivers)))
      const error = yield* Effect.flip(Layer.build(layer))
      assert.match(error.message, /pool of class a.*1073741824 bytes.*Raise the budget/)
    }))
})
