/** Until it holds; the limit is for a broken program, not a measure. */
export const until = async (
  what: string,
  holds: () => boolean | Promise<boolean>,
  limitMillis = 30_000
): Promise<void> => {
  const end = performance.now() + limitMillis
  while (!(await holds())) {
    if (performance.now() > end) throw new Error(`not within ${limitMillis} ms: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}
