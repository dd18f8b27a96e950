import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Random } from "effect"
import { TestClock } from "effect/testing"
import type { ProvisionFailed } from "../../src/layers/sandbox/Sandbox.ts"
import * as SandboxTest from "../../src/layers/sandbox/SandboxTest.ts"
import { standardClass } from "../../src/schemas/WorkerConfig.ts"
import { begin, diskOf, open, pooled, settled, type Taken } from "../pool/Fixture.ts"

const SEEDS = Number(process.env["STOKER_POOL_SEEDS"] ?? 60)
const STEPS = 80
const MAX_AGE_MS = 20_000
const LIMIT = 6

/** One life of three classes on one host, from a seed; what went wrong, if anything, is an assertion with its history. */
const life = (seed: number) =>
  Effect.gen(function*() {
    const history: Array<string> = []
    const below = (bound: number) => Random.nextIntBetween(0, bound)
    const oneOf = <A>(all: ReadonlyArray<A>) => Effect.map(below(Math.max(1, all.length)), (n) => all[n])
    const now = TestClock.testClockWith((clock) => Effect.succeed(clock.currentTimeMillisUnsafe()))

    const begunAt = new Map<string, number>()
    const lost = new Set<string>()
    const provisions: ReadonlyArray<Effect.Effect<void, ProvisionFailed>> = [
      Effect.void,
      Effect.sleep(50),
      Effect.sleep(2000),
      Effect.never,
      Effect.fail(SandboxTest.failed("random")),
      Effect.andThen(Effect.sleep(30), Effect.fail(SandboxTest.failed("later"))),
      Effect.uninterruptible(Effect.sleep(5000)),
      Effect.die("a driver's bug")
    ]
    const fake = SandboxTest.makeDriver({
      tellsLoss: seed % 2 === 0,
      provision: (n) =>
        Effect.gen(function*() {
          begunAt.set(`fake${n}`, yield* now)
          yield* (yield* oneOf(provisions)) ?? Effect.void
        }),
      answer: () => Effect.flatMap(below(20), (n) => n === 0 ? Effect.never : Effect.void),
      release: () => Effect.flatMap(below(3), (n) => n === 0 ? Effect.sleep(1000) : Effect.void)
    })
    const quick = { maxAgeMs: MAX_AGE_MS, healthEveryMs: 1000, healthMs: 500, shrinkMs: 2000, provisionMs: 1000 }
    const backoff = { backoffMs: 100, backoffMaxMs: 1000, failFastMs: 3000, rateWindowMs: 5000 }
    const a = pooled("a", { minimum: 2, maximum: 4, ...quick, ...backoff })
    const b = pooled("b", { minimum: 0, maximum: 2, parallel: 1, ...quick, ...backoff })
    const bare = standardClass("bare", "oci")
    const { close, pools, take } = yield* open([fake], [a, b, bare], { sandboxes: LIMIT })

    const handedOut = new Set<string>()
    const takers: Array<Fiber.Fiber<Taken, ProvisionFailed>> = []
    const used: Array<Taken> = []
    const taking = Effect.gen(function*() {
      const sandboxClass = (yield* oneOf([a, a, b, bare])) ?? a
      const disk = diskOf(sandboxClass)
      const asked = (yield* below(8)) === 0 ? { ...disk, bytes: disk.bytes - 4096 } : disk
      const taken = yield* Effect.tap(take(sandboxClass, asked), ({ sandbox }) =>
        Effect.gen(function*() {
          history.push(`${sandbox.id} to a taker of ${sandboxClass.name}`)
          assert.isFalse(handedOut.has(sandbox.id), "handed out twice")
          handedOut.add(sandbox.id)
          assert.isTrue(fake.alive.has(sandbox.id), "handed out and not there")
          if (seed % 2 === 0) assert.isFalse(lost.has(sandbox.id), "handed out although lost")
          assert.isBelow((yield* now) - (begunAt.get(sandbox.id) ?? 0), MAX_AGE_MS, "handed out too old")
        }))
      return taken
    })

    const steps: ReadonlyArray<readonly [weight: number, name: string, step: Effect.Effect<unknown>]> = [
      [8, "take", Effect.map(begin(taking), (fiber) => void takers.push(fiber))],
      [
        3,
        "interrupt",
        Effect.flatMap(Effect.suspend(() => oneOf(takers)), (fiber): Effect.Effect<unknown> =>
          fiber === undefined ? Effect.void : begin(Fiber.interrupt(fiber)))
      ],
      [
        5,
        "close",
        Effect.flatMap(below(Math.max(1, used.length)), () =>
          Effect.suspend(() => {
            const taken = used.shift()
            return taken === undefined ? Effect.void : Effect.asVoid(begin(taken.close))
          }))
      ],
      [
        2,
        "lose",
        Effect.map(
          Effect.suspend(() =>
            oneOf([...fake.alive.keys()])
          ),
          (id) => {
            if (id === undefined || handedOut.has(id)) return
            lost.add(id)
            fake.lose(id)
          }
        )
      ],
      [6, "a moment", TestClock.adjust("60 millis")],
      [3, "a second", TestClock.adjust("1 second")],
      [1, "long", TestClock.adjust("12 seconds")]
    ]
    const bag = steps.flatMap(([weight, name, step]) => Array.from({ length: weight }, () => ({ name, step })))

    /** Takers that have one become holders of it. */
    const sort = Effect.gen(function*() {
      for (const fiber of takers.splice(0)) {
        const exit = fiber.pollUnsafe()
        if (exit === undefined) takers.push(fiber)
        else if (exit._tag === "Success") used.push(exit.value)
        else {
          const defect = exit.cause.reasons.find((reason) => reason._tag === "Die")
          if (defect !== undefined) return yield* Effect.die(defect.defect)
        }
      }
    })

    const drainAt = (yield* below(4)) === 0 ? yield* below(STEPS) : STEPS
    for (let n = 0; n < drainAt; n++) {
      const chosen = yield* oneOf(bag)
      if (chosen === undefined) continue
      history.push(chosen.name)
      yield* chosen.step
      yield* sort
      const { classes, held } = yield* pools.stats
      assert.isAtMost(held.sandboxes, LIMIT, "above the budget")
      assert.isAtMost(fake.held(), held.sandboxes, "held and not charged")
      for (const { blocked, idle, leaving, making, used, waiting } of classes) {
        assert.isAtLeast(Math.min(blocked, idle, leaving, making, used, waiting), 0, "a count below zero")
        assert.isFalse(idle > 0 && waiting > blocked, "one waits while one stands ready")
      }
    }
    const draining = yield* begin(pools.drain)
    yield* TestClock.adjust("3 minutes")
    yield* Fiber.join(draining)
    yield* sort
    assert.lengthOf(takers, 0, "a taker that was not answered")
    for (const { close } of used) yield* begin(close)
    yield* TestClock.adjust("1 minute")
    const { classes, held } = yield* pools.stats
    assert.deepStrictEqual(held, { memoryBytes: 0, cpus: 0, sandboxes: 0 }, "still charged")
    for (const { idle, leaving, making, used, waiting } of classes) {
      assert.deepStrictEqual({ idle, leaving, making, used, waiting }, {
        idle: 0,
        leaving: 0,
        making: 0,
        used: 0,
        waiting: 0
      })
    }
    yield* close
    yield* settled
    assert.strictEqual(fake.held(), 0, "still held")
    assert.strictEqual(fake.alive.size, 0, "still alive")
    assert.isAtMost(fake.peak(), LIMIT)
    return handedOut.size
  }).pipe(
    // What failed is told although teardowns wait for a clock that nobody would move any more.
    Effect.onError(() => Effect.forkDetach(Effect.repeat(TestClock.adjust("1 second"), { times: 100 }))),
    Effect.scoped,
    Random.withSeed(seed),
    Effect.provide(TestClock.layer())
  )

describe("pools in any order of events", () => {
  it.effect(`keep every promise over ${SEEDS} seeds`, () =>
    Effect.gen(function*() {
      let served = 0
      for (let seed = 1; seed <= SEEDS; seed++) {
        served += yield* Effect.annotateLogs(life(seed), { seed }).pipe(
          Effect.catchDefect((defect) => Effect.die(new Error(`seed ${seed}: ${String(defect)}`, { cause: defect })))
        )
      }
      assert.isAbove(served, SEEDS * 5)
    }), 120_000)
})
