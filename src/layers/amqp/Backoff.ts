import { Duration, Effect, Random } from "effect"

const first = Duration.millis(100)
const longest = Duration.seconds(10)

/** The wait before attempt `n` (0 first): doubling, half of it random so that workers spread, never over 10 s. */
export const delay = (n: number, unit: number): Duration.Duration => {
  const grown = Math.min(Duration.toMillis(longest), Duration.toMillis(first) * 2 ** Math.min(n, 20))
  return Duration.millis(grown * (0.5 + unit / 2))
}

/** Sleeps that wait. */
export const sleep = (n: number): Effect.Effect<void> =>
  Effect.flatMap(Random.next, (unit) => Effect.sleep(delay(n, unit)))
