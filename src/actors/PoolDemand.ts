/**
 * How many sandboxes should stand ready: as many as are asked for while one is being made, and a little more, because
 * what arrives does not come in step.
 */

/** Weight of the newest of the measured provision times. */
const NEWEST = 0.3

/** Below this expectation none is kept: about one take in a minute, at 15 ms a sandbox. */
const NEGLIGIBLE = 0.05

export interface PoolDemand {
  /** Somebody asks for a sandbox. Times are milliseconds of one monotonic clock. */
  readonly arrived: (nowMs: number) => void
  /** One was made in this time. */
  readonly provisioned: (tookMs: number) => void
  /** Of what a warm pool should hold now. */
  readonly wish: (nowMs: number, minimum: number, maximum: number) => number
  /** How long the last one took to make. */
  readonly lastMs: () => number | undefined
}

export const make = (windowMs: number): PoolDemand => {
  /** Arrivals, each fading with its age; over `windowMs` it is their rate. */
  let weight = 0
  let weighedAt = 0
  let meanMs: number | undefined
  let last: number | undefined
  const faded = (nowMs: number) => weight * Math.exp((weighedAt - nowMs) / windowMs)
  return {
    arrived: (nowMs) => {
      weight = faded(nowMs) + 1
      weighedAt = nowMs
    },
    provisioned: (tookMs) => {
      last = tookMs
      meanMs = meanMs === undefined ? tookMs : meanMs + NEWEST * (tookMs - meanMs)
    },
    wish: (nowMs, minimum, maximum) => {
      const mean = (faded(nowMs) / windowMs) * (meanMs ?? 0)
      // Three standard deviations of a Poisson process: more than that arrive during one provision in 3 of 1000 cases.
      const expected = mean + 3 * Math.sqrt(mean)
      return Math.min(maximum, Math.max(minimum, expected < NEGLIGIBLE ? 0 : Math.ceil(expected)))
    },
    lastMs: () => last
  }
}
