/** Whose turn it is among lanes of different weights. */

export interface Lane {
  /** Turns, relative to the others' while they too have something. */
  readonly weight: number
  /** What it has saved up. 0 at first. */
  credit: number
}

/** Smooth weighted round robin among the lanes that have something: a heavy one first, a light one never starved. */
export const next = <L extends Lane>(filled: ReadonlyArray<L>): L | undefined => {
  for (const lane of filled) lane.credit += lane.weight
  const [first, ...others] = filled
  if (first === undefined) return undefined
  const chosen = others.reduce((best, lane) => lane.credit > best.credit ? lane : best, first)
  chosen.credit -= filled.reduce((sum, { weight }) => sum + weight, 0)
  return chosen
}
