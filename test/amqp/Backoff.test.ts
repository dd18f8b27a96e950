import { assert, describe, it } from "@effect/vitest"
import { Duration } from "effect"
import * as Backoff from "../../src/layers/amqp/Backoff.ts"

describe("Backoff", () => {
  it("doubles from 0.1 s to 10 s, half of it random, and is never nothing", () => {
    const at = (attempt: number, unit: number) => Duration.toMillis(Backoff.delay(attempt, unit))
    assert.deepStrictEqual([0, 1, 2, 3].map((attempt) => at(attempt, 1)), [100, 200, 400, 800])
    assert.deepStrictEqual([at(0, 0), at(3, 0.5)], [50, 600])
    assert.deepStrictEqual([at(7, 1), at(1_000_000, 1), at(1_000_000, 0)], [10_000, 10_000, 5_000])
  })
})
