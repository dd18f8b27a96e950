/**
 * The rate of the processor's time stamp counter. An emulated machine has the host's counter, and no clock of known rate beside
 * it: a kernel that is not told the rate hangs when it looks for one (docs/microvms.md).
 */

/** From a slow old processor to more than any has. */
const LEAST_KHZ = 100_000
const MOST_KHZ = 20_000_000

/** kHz, of what `native/tsc.c` says; undefined if that is no rate. */
export const parse = (said: string): number | undefined => {
  const match = /^(\d{5,9})\n$/.exec(said)
  const khz = Number(match?.[1])
  return khz >= LEAST_KHZ && khz <= MOST_KHZ ? khz : undefined
}
