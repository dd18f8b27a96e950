/** The name somebody may have meant. */

/** Letters to change, add or leave out to make one text of the other (Levenshtein). */
const distance = (a: string, b: string): number => {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i += 1) {
    const next = [i]
    for (let j = 1; j <= b.length; j += 1) {
      const change = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(change, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1))
    }
    row = next
  }
  return row[b.length] ?? 0
}

const plain = (text: string) => text.toLowerCase().replaceAll(/[^a-z0-9]/g, "")

/** How far off a name may be and still be the one that was meant: a third of it. */
const cost = (given: string, known: string): number => {
  const [a, b] = [plain(given), plain(known)]
  // "drainMs" for "drain", "wallTime" for "wall".
  if (a.startsWith(b) || b.startsWith(a)) return 1
  return distance(a, b)
}

/** Far longer than any name. Comparing takes time by the length of both, and whoever asks chooses one of them. */
const LONGEST = 256

/** The known name that is most like it, if one is like it at all. */
export const nearest = (given: string, known: ReadonlyArray<string>): string | undefined => {
  if (given.length > LONGEST) return undefined
  const [first] = known.map((name) => ({ name, cost: cost(given, name) })).toSorted((a, b) => a.cost - b.cost)
  return first !== undefined && first.cost <= Math.max(2, Math.floor(given.length / 3)) ? first.name : undefined
}
