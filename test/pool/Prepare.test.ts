import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Scope } from "effect"
import { TestClock } from "effect/testing"
import { provisionInto } from "../../src/actors/PoolProvision.ts"
import { failed, makeDriver } from "../../src/layers/sandbox/SandboxTest.ts"
import { standardClass } from "../../src/schemas/WorkerConfig.ts"

const order = (prepare: Effect.Effect<void, ReturnType<typeof failed>>) => ({
  sandboxClass: standardClass("oci", "oci"),
  driver: { ...makeDriver().driver, prepare: () => prepare },
  disk: { bytes: 1, inodes: 1 },
  limitMs: 15_000
})

describe("what a class needs before its first sandbox", () => {
  it.effect("may take longer than a sandbox may", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const making = yield* Effect.forkChild(
        provisionInto(scope, order(Effect.sleep("10 minutes")), (effect) => effect)
      )
      yield* TestClock.adjust("9 minutes")
      assert.isUndefined(making.pollUnsafe())
      yield* TestClock.adjust("2 minutes")
      assert.strictEqual((yield* Fiber.join(making)).driver, "oci")
      yield* Scope.close(scope, Exit.void)
    }))

  it.effect("fails the sandbox with its own words", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const wanted = order(Effect.fail(failed("no such image", "oci", "image")))
      const error = yield* Effect.flip(provisionInto(scope, wanted, (effect) => effect))
      assert.strictEqual(error.reason, "no such image")
      yield* Scope.close(scope, Exit.void)
    }))
})
