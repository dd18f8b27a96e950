import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { fib, mostPosition, ordinal } from "../../src/functions/Fib.ts"
import { call, refused } from "./Calls.ts"

/** The slow way. */
const added = (position: number): bigint => {
  let [a, b] = [0n, 1n]
  for (let n = 1; n < position; n++) [a, b] = [b, a + b]
  return a
}

describe("fib", () => {
  it.effect("says what the RFD's transcript says", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* call(fib, { number: 3 }), {
        said: [
          "Calculating the value of the 3rd value in the Fibonacci sequence",
          "Using lookup; value is '1'."
        ],
        result: "1"
      })
    }))

  it.effect("the first ones are 0, 1, 1, 2, 3", () =>
    Effect.gen(function*() {
      const values = yield* Effect.forEach([1, 2, 3, 4, 5], (number) => call(fib, { number }))
      assert.deepStrictEqual(values.map(({ result }) => result), ["0", "1", "1", "2", "3"])
    }))

  it.effect("every position up to 500 is what adding gives, in the table and behind it", () =>
    Effect.gen(function*() {
      for (let number = 1; number <= 500; number++) {
        const { result, said } = yield* call(fib, { number })
        assert.strictEqual(result, String(added(number)), `${number}`)
        const isTold = said[1] === `Using lookup; value is '${added(number)}'.`
        assert.strictEqual(isTold, number <= 94, `${number}`)
      }
    }))

  it.effect("has all digits of a large one", () =>
    Effect.gen(function*() {
      assert.strictEqual((yield* call(fib, { number: 20_001 })).result, String(added(20_001)))
    }))

  it.live(
    "the ten-millionth has as many digits as it must, and begins and ends as it must",
    () =>
      Effect.gen(function*() {
        const number = 10_000_000
        const digits = String((yield* call(fib, { number })).result)
        // The last nine by adding, the first six by the closed form: φ^n / √5.
        let [a, b] = [0, 1]
        for (let n = 1; n < number; n++) [a, b] = [b, (a + b) % 1_000_000_000]
        const log = (number - 1) * Math.log10((1 + Math.sqrt(5)) / 2) - Math.log10(5) / 2
        assert.strictEqual(digits.length, Math.floor(log) + 1)
        assert.strictEqual(digits.slice(-9), String(a).padStart(9, "0"))
        assert.strictEqual(digits.slice(0, 6), String(Math.floor(10 ** (log % 1 + 5))))
      }),
    60_000
  )

  it.live("can be interrupted on its way", () =>
    Effect.gen(function*() {
      const running = yield* Effect.forkChild(call(fib, { number: mostPosition }), { startImmediately: true })
      yield* Effect.yieldNow
      const before = performance.now()
      yield* Fiber.interrupt(running)
      // The whole takes ten seconds and more.
      assert.isBelow(performance.now() - before, 5000)
    }), 60_000)

  it("ordinals are English", () => {
    const numbers = [1, 2, 3, 4, 10, 11, 12, 13, 14, 21, 22, 23, 24, 100, 101, 111, 112, 113, 121, 1011, 1022]
    assert.deepStrictEqual(numbers.map(ordinal), [
      "1st",
      "2nd",
      "3rd",
      "4th",
      "10th",
      "11th",
      "12th",
      "13th",
      "14th",
      "21st",
      "22nd",
      "23rd",
      "24th",
      "100th",
      "101st",
      "111th",
      "112th",
      "113th",
      "121st",
      "1011th",
      "1022nd"
    ])
  })

  for (
    const [name, args, words] of [
      ["position 0", { number: 0 }, "a position from 1 to 100000000"],
      ["a negative one", { number: -1 }, "a position from 1 to 100000000"],
      ["a fraction", { number: 1.5 }, "integer"],
      ["no safe integer", { number: 2 ** 60 }, "integer"],
      ["one whose digits would not fit", { number: 1_000_000_000 }, "its digits would not fit"],
      ["text", { number: "3" }, "number"],
      ["no position", {}, "Missing key"],
      ["one argument more", { number: 3, numbre: 4 }, "numbre"],
      ["null", null, "object"]
    ] as const
  ) {
    it.effect(`refuses ${name}, saying why`, () =>
      Effect.map(refused(fib, args), (text) => assert.include(text, words)))
  }
})
