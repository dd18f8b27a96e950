import { patience } from "../support/Slowness.ts"

/** Until it holds; the limit, of a plain machine, is for a broken program and not a measure. */
export const until = async (
  what: string,
  holds: () => boolean | Promise<boolean>,
  limitMillis = 30_000
): Promise<void> => {
  const end = performance.now() + patience(limitMillis)
  while (!(await holds())) {
    if (performance.now() > end) throw new Error(`not within ${limitMillis} ms: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}
