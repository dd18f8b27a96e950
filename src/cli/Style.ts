/** Colours, or none. */

export interface Style {
  readonly dim: (text: string) => string
  readonly bold: (text: string) => string
  readonly red: (text: string) => string
  readonly green: (text: string) => string
  readonly yellow: (text: string) => string
  readonly cyan: (text: string) => string
}

/** Select graphic rendition (ECMA-48) on and off. */
const sgr = (on: number, off: number) => (text: string) => `\u001b[${on}m${text}\u001b[${off}m`

const plain = (text: string) => text

export const style = (colour: boolean): Style =>
  colour
    ? {
      dim: sgr(2, 22),
      bold: sgr(1, 22),
      red: sgr(31, 39),
      green: sgr(32, 39),
      yellow: sgr(33, 39),
      cyan: sgr(36, 39)
    }
    : { dim: plain, bold: plain, red: plain, green: plain, yellow: plain, cyan: plain }

/** Columns of text, each as wide as its widest cell; the last one is not padded. No styled cells but in the last column. */
export const table = (rows: ReadonlyArray<ReadonlyArray<string>>): string => {
  const widths: Array<number> = []
  for (const row of rows) row.forEach((cell, index) => widths[index] = Math.max(widths[index] ?? 0, cell.length))
  const line = (row: ReadonlyArray<string>) =>
    row.map((cell, index) => index === row.length - 1 ? cell : cell.padEnd(widths[index] ?? 0)).join("  ").trimEnd()
  return rows.map(line).join("\n")
}
