/** Randomness that can be had again: for tests that print their seed. */

/** A whole number from 0 up to, not including, `limit`. */
export type Random = (limit: number) => number

/** mulberry32: small, and the same on every machine. */
export const randomOf = (seed: number): Random => {
  let state = seed
  return (limit) => {
    state = (state + 0x6D2B79F5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 4_294_967_296) * limit)
  }
}

export const pick = <A>(random: Random, from: ReadonlyArray<A>): A | undefined => from[random(from.length)]
