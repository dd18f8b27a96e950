import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber } from "effect"
import { once } from "../../src/layers/Once.ts"

describe("what is made once", () => {
  it.effect("is made by the first for all who wait, and not again", () =>
    Effect.gen(function*() {
      let times = 0
      const may = yield* Deferred.make<void>()
      const made = yield* once(Effect.andThen(Deferred.await(may), Effect.sync(() => ++times)))
      const all = yield* Effect.forkChild(Effect.all([made, made, made], { concurrency: 3 }), {
        startImmediately: true
      })
      yield* Deferred.succeed(may, undefined)
      assert.deepStrictEqual(yield* Fiber.join(all), [1, 1, 1])
      assert.strictEqual(yield* made, 1)
    }))

  it.effect("is tried again after a failure and after an interruption", () =>
    Effect.gen(function*() {
      let times = 0
      const made = yield* once(Effect.suspend(() => {
        times += 1
        return times === 1 ? Effect.fail("no luck") : times === 2 ? Effect.never : Effect.succeed(times)
      }))
      assert.strictEqual(yield* Effect.flip(made), "no luck")
      const hanging = yield* Effect.forkChild(made, { startImmediately: true })
      yield* Fiber.interrupt(hanging)
      assert.strictEqual(yield* made, 3)
    }))
})
