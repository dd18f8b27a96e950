/** Versions as their numbers. */

/** The first number first; what is missing counts as 0. */
export const isBefore = (version: ReadonlyArray<number>, other: ReadonlyArray<number>): boolean => {
  for (let i = 0; i < Math.max(version.length, other.length); i++) {
    const difference = (version[i] ?? 0) - (other[i] ?? 0)
    if (difference !== 0) return difference < 0
  }
  return false
}
