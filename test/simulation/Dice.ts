/** All chance of a simulation, from one seed: the same on every machine. */
import type { Random } from "effect"

export interface Dice {
  /** A whole number from 0, below `limit`. */
  readonly below: (limit: number) => number
  /** From `low` to `high`, fractions left out. */
  readonly between: (low: number, high: number) => number
  /** True in `part` of all cases. */
  readonly chance: (part: number) => boolean
  readonly pick: <A>(from: readonly [A, ...ReadonlyArray<A>]) => A
  /** Effect's own randomness: jitter, backoff. */
  readonly service: Random.Random
}

/** mulberry32: small, and good enough to tell seeds apart. */
export const make = (seed: number): Dice => {
  let state = seed
  const next = () => {
    state = (state + 0x6D2B79F5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
  const below = (limit: number) => Math.floor(next() * limit)
  return {
    below,
    between: (low, high) => low + below(high - low + 1),
    chance: (part) => next() < part,
    pick: (from) => from[below(from.length)] ?? from[0],
    service: {
      nextDoubleUnsafe: next,
      nextIntUnsafe: () => Math.floor((next() - 0.5) * 2 * Number.MAX_SAFE_INTEGER)
    }
  }
}
