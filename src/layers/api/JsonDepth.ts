/** JSON that is nested without end costs checks and stacks far more than its size. */

/** Brackets within brackets: far more than arguments have, far less than a stack. */
export const MOST_DEPTH = 200

/** Whether JSON text is nested deeper than that; brackets in strings are none. */
export const isTooDeep = (text: string): boolean => {
  let depth = 0
  let quoted = false
  for (let index = 0; index < text.length; index++) {
    const char = text[index]
    if (quoted) {
      if (char === "\\") index++
      else if (char === "\"") quoted = false
    } else if (char === "\"") quoted = true
    else if (char === "[" || char === "{") {
      depth++
      if (depth > MOST_DEPTH) return true
    } else if (char === "]" || char === "}") depth--
  }
  return false
}
