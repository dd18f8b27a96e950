/** Somebody sets the date while jobs run: what is measured stays true, nothing waits longer, no job runs twice. */
import { afterAll, assert, describe, it, layer } from "@effect/vitest"
import { Clock, Effect, Fiber, Layer } from "effect"
import { TestClock } from "effect/testing"
import * as Actor from "../../src/actors/Actor.ts"
import * as HostTest from "../../src/layers/host/HostTest.ts"
import { Journal } from "../../src/layers/journal/Journal.ts"
import * as JournalMemory from "../../src/layers/journal/JournalMemory.ts"
import { Log } from "../../src/layers/log/Log.ts"
import * as LogMemory from "../../src/layers/log/LogMemory.ts"
import { InstanceId, keyText } from "../../src/schemas/Ids.ts"
import { keyOf } from "../../src/schemas/Job.ts"
import { noUsage } from "../../src/schemas/Usage.ts"
import { endless, exited, makeJob, makeWorker, makeWorld, outcomes } from "../actors/World.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import * as SetClock from "../support/SetClock.ts"

const HOUR = 3_600_000
const TODAY = 500_000 * HOUR

/** Runs the test with a clock that can be set. */
const set = <A, E, R>(use: (clock: SetClock.SetClock) => Effect.Effect<A, E, R>) =>
  Effect.flatMap(SetClock.make, (clock) => {
    // Not 1970, before which there is no time that could be written down.
    clock.jump(TODAY)
    return Effect.provideService(use(clock), Clock.Clock, clock.clock)
  })

describe("the date is set while", () => {
  for (const [where, by] of [["forward", HOUR], ["back", -HOUR]] as const) {
    it.effect(`a job waits for a slot, an hour ${where}: it is not said to have waited an hour`, () =>
      set(({ jump }) =>
        Effect.gen(function*() {
          const world = makeWorld()
          const worker = yield* makeWorker(world, { name: "w1", script: endless, config: { slots: 1 } })
          const [first, second] = [makeJob("a"), makeJob("b")]
          yield* worker.deliver(first)
          yield* worker.deliver(second)
          yield* TestClock.adjust("1 second")
          jump(by)
          yield* worker.stop(first)
          yield* TestClock.adjust("1 second")
          yield* worker.stop(second)
          yield* worker.idle
          const ended = world.told.flatMap(({ event }) =>
            event._tag === "Ended" && event.key.id === second.id ? [event.usage.queuedMicros ?? -1] : []
          )
          assert.deepStrictEqual(ended, [1_000_000])
        })
      ))

    it.effect(`a reader waits for output, an hour ${where}: it is answered when its time is over`, () =>
      set(({ jump }) =>
        Effect.gen(function*() {
          const log = yield* Log
          const key = keyOf(makeJob("a"))
          const writer = yield* log.open(key, { attempt: 1, keepBytes: 100 })
          const reading = yield* log.read(key, { stream: "all", offset: 0, maxBytes: 10, waitMs: 10_000 }).pipe(
            Effect.forkChild({ startImmediately: true })
          )
          yield* TestClock.adjust("5 seconds")
          jump(by)
          assert.isUndefined(reading.pollUnsafe())
          yield* TestClock.adjust("5 seconds")
          assert.deepStrictEqual((yield* Fiber.join(reading)).entries, [])
          yield* writer.end
        }).pipe(Effect.scoped, Effect.provide(LogMemory.layerMemory))
      ))
  }

  it.effect("an actor fails now and then: old failures are forgotten in time, and not before", () =>
    set(({ jump }) =>
      Effect.gen(function*() {
        let failures = 0
        const body = Effect.suspend(() => {
          failures += 1
          jump(-HOUR)
          return Effect.fail("trouble")
        })
        const intensity = { times: 3, within: "1 minute", backoff: "1 second" } as const
        const given = yield* Effect.forkChild(
          Effect.flip(Actor.restarting("it", intensity, Effect.andThen(Effect.sleep("25 seconds"), body)))
        )
        yield* TestClock.adjust("10 minutes")
        assert.isUndefined(given.pollUnsafe(), "two in each minute are fewer than three")
        assert.isAbove(failures, 15)
        yield* Fiber.interrupt(given)
      })
    ))

  it.effect("a job runs, an hour forward: who is asked for it again does not run it beside the first", () =>
    set(({ jump }) =>
      Effect.gen(function*() {
        const world = makeWorld()
        const job = makeJob("a")
        const first = yield* makeWorker(world, { name: "w1", script: endless })
        yield* first.deliver(job)
        yield* TestClock.adjust("1 second")
        jump(HOUR)
        const second = yield* makeWorker(world, { name: "w2", script: endless, alive: ["w1"] })
        yield* second.deliver(job, "one", { redelivered: true })
        yield* TestClock.adjust("10 seconds")
        assert.deepStrictEqual(world.begun, [keyText(keyOf(job))])
        yield* first.stop(job)
        yield* TestClock.adjust("10 seconds")
        yield* second.idle
        assert.strictEqual(world.overlap, 1)
        assert.strictEqual(outcomes(world, job).length, 1)
        assert.strictEqual(world.unacked.size, 0)
      })
    ))

  it.effect("claims and ended jobs lie in the journal: a lease ends early at worst, no answer is forgotten", () =>
    set(({ jump }) =>
      Effect.gen(function*() {
        const journal = yield* Journal
        const options = { instance: InstanceId.make("w1"), leaseMs: 30_000, maxAttempts: 2 }
        const request = (id: string) => ({ job: makeJob(id), hash: "h", reply: null })
        const claim = yield* journal.claim(request("ended"), options)
        assert.strictEqual(claim._tag, "Granted")
        if (claim._tag !== "Granted") return
        const outcome = exited(0)
        yield* journal.settle(claim.claim, { attempt: 1, outcome, usage: noUsage, output: [], endedAtMs: 0 }, [])
        const running = yield* journal.claim(request("running"), options)
        assert.strictEqual(running._tag, "Granted")
        if (running._tag !== "Granted") return
        for (const by of [HOUR, -2 * HOUR, HOUR]) {
          jump(by)
          assert.strictEqual((yield* journal.claim(request("ended"), options))._tag, "Settled")
          assert.deepStrictEqual(yield* journal.renew([running.claim], 30_000), [])
          assert.strictEqual((yield* journal.claim(request("running"), options))._tag, "Held")
        }
      }).pipe(Effect.provide(JournalMemory.layerMemory.pipe(Layer.provideMerge(HostTest.layerTest()))))
    ))
})

const state = Jobs.stateDirectory()

describe("the date is set while a program runs", () => {
  afterAll(() => Jobs.remove(state))

  layer(Jobs.layer("process", state), { excludeTestServices: true, timeout: "1 minute" })("in one executor", (it) => {
    for (const [where, by] of [["forward", HOUR], ["back", -HOUR]] as const) {
      it.effect(`an hour ${where}: its times are those of its phase`, () =>
        set(({ jump }) =>
          Effect.gen(function*() {
            const ran = yield* Jobs.run("process", {
              args: { argv: ["/bin/sh", "-c", "echo up; sleep 0.3"] },
              limits: { wallMs: 5000 },
              onOutput: () => Effect.sync(() => jump(by))
            })
            assert.deepStrictEqual(ran.outcome, exited(0))
            const [phase] = ran.usage.phases
            assert.isAtLeast(phase?.wallMicros ?? 0, 300_000)
            assert.isAtMost(phase?.wallMicros ?? 0, 4_000_000)
          })
        ))
    }
  })
})
