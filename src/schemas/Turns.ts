/** Smooth weighted round robin: a heavy lane goes more often and never many times running, a light one is not starved. */

/** One of those who take turns. `credit` is this module's; it begins at 0. */
export interface Lane {
  readonly weight: number
  credit: number
}

/** Whose turn it is among those that have something now. The others neither gain nor lose. */
export const next = <L extends Lane>(filled: ReadonlyArray<L>): L | undefined => {
  for (const lane of filled) lane.credit += lane.weight
  const [first, ...others] = filled
  if (first === undefined) return undefined
  const chosen = others.reduce((best, lane) => lane.credit > best.credit ? lane : best, first)
  chosen.credit -= filled.reduce((sum, { weight }) => sum + weight, 0)
  return chosen
}
