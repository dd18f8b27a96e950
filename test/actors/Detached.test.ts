import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect } from "effect"
import { makeJob, makeWorker, makeWorld, outcomes } from "./World.ts"

const settled = Effect.repeat(Effect.yieldNow, { times: 200 })

describe("an emitter that no job waits for", () => {
  it.effect("holds neither a job's slot nor its message back, and what it has to tell stays owed until it is told", () =>
    Effect.gen(function*() {
      const world = makeWorld()
      const there = yield* Deferred.make<void>()
      const worker = yield* makeWorker(world, {
        name: "w1",
        detached: true,
        confirm: Deferred.await(there),
        config: { slots: 1 }
      })
      yield* worker.deliver(makeJob("a"))
      yield* worker.deliver(makeJob("b"))
      yield* worker.idle
      yield* settled
      assert.strictEqual(world.unacked.size, 0)
      assert.lengthOf(world.begun, 2)
      // Sent once each, whatever sweeps meanwhile.
      yield* worker.sweep
      yield* settled
      const ends = world.told.filter(({ event }) => event._tag === "Ended")
      assert.lengthOf(ends, 2)
      assert.isAbove((yield* worker.journal.counts).owed, 0)
      yield* Deferred.succeed(there, undefined)
      yield* settled
      assert.strictEqual((yield* worker.journal.counts).owed, 0)
    }))

  it.effect("tells after a worker's death between any two steps", () =>
    Effect.gen(function*() {
      const alive = makeWorld()
      const undisturbed = yield* makeWorker(alive, { name: "w0", detached: true })
      yield* undisturbed.deliver(makeJob("a"))
      yield* undisturbed.idle
      yield* settled
      const steps = alive.steps.length
      assert.isAbove(steps, 10)
      for (let at = 1; at <= steps; at++) {
        const where = `death at step ${at}, ${alive.steps[at - 1]}`
        const world = makeWorld()
        const job = makeJob("a")
        const first = yield* makeWorker(world, { name: "w1", detached: true, diesAt: at })
        yield* Effect.forkDetach(first.deliver(job), { startImmediately: true })
        yield* first.died
        const second = yield* makeWorker(world, { name: "w2", detached: true })
        for (const holder of yield* second.journal.holders) yield* second.journal.abandon(holder)
        yield* second.sweep
        for (const redelivered of Array.from(world.unacked.values())) yield* second.deliver(redelivered)
        yield* second.idle
        yield* settled
        assert.lengthOf(outcomes(world, job), 1, where)
        assert.strictEqual((yield* second.journal.counts).owed, 0, where)
      }
    }))
})
