/** `fib`: the value at a position of the Fibonacci sequence, with all its digits. */
import { Effect, Schema } from "effect"
import { make } from "../schemas/Function.ts"

/**
 * Its number has 20,898,764 digits, which take twenty seconds (measured) and as many bytes of output. Far above what a class usually
 * lets a job use, far below 1.5 × 10^9, where V8 has no room for the number any more.
 */
export const mostPosition = 100_000_000

/** The arguments of `fib`. */
export const FibArgs = Schema.Struct({
  number: Schema.Int.check(
    Schema.isBetween({ minimum: 1, maximum: mostPosition }, {
      expected: `a position from 1 to ${mostPosition} (its digits would not fit behind that)`
    })
  ).annotate({
    title: "Number",
    description: "the position in the sequence, counted from 1: 1 is 0, 2 and 3 are 1, 4 is 2"
  })
})
export type FibArgs = typeof FibArgs.Type

/** The 1st value to the 94th, the last one below 2^64. */
const table: ReadonlyArray<bigint> = (() => {
  const values = [0n, 1n]
  while (values.length < 94) values.push((values.at(-1) ?? 0n) + (values.at(-2) ?? 0n))
  return values
})()

/**
 * The `n`-th number where the 0th is 0 and the 1st is 1, by doubling: F(2k) = F(k)(2F(k+1) − F(k)) and
 * F(2k+1) = F(k)² + F(k+1)². Half of all the work is in the last step, so others get their turn between steps.
 */
const doubling = Effect.fnUntraced(function*(n: number) {
  let current = 0n
  let next = 1n
  for (const bit of n.toString(2)) {
    yield* Effect.yieldNow
    const even = current * (2n * next - current)
    const odd = current * current + next * next
    current = bit === "1" ? odd : even
    next = bit === "1" ? even + odd : odd
  }
  return current
})

/** `1st`, `2nd`, `3rd`, `4th`, `11th`, `21st`. */
export const ordinal = (n: number): string => {
  const isTeen = n % 100 >= 11 && n % 100 <= 13
  const ending = isTeen ? undefined : ["th", "st", "nd", "rd"][n % 10]
  return `${n}${ending ?? "th"}`
}

/** Exact at any size; what comes back is the decimal digits, as text. */
export const fib = make({
  name: "fib",
  title: "Fibonacci",
  description: "calculates the value of a position in the Fibonacci sequence.",
  args: FibArgs,
  positional: { number: "position" },
  handler: Effect.fnUntraced(function*({ number }, { say }) {
    yield* say(`Calculating the value of the ${ordinal(number)} value in the Fibonacci sequence`)
    const known = table[number - 1]
    if (known !== undefined) {
      yield* say(`Using lookup; value is '${known}'.`)
      return String(known)
    }
    yield* say("Using fast doubling.")
    return String(yield* doubling(number - 1))
  })
})
