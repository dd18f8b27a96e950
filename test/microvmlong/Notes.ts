/** What a long test has to say beside that it passed, for docs/microvm-report.md: a line each, in the file STOKER_TEST_NOTES names. */
import { appendFileSync, existsSync, readFileSync } from "node:fs"

const path = process.env["STOKER_TEST_NOTES"]

export interface Note {
  /** The test file, from the checkout. */
  readonly name: string
  readonly text: string
}

export const add = (name: string, text: string): void => {
  if (path !== undefined) appendFileSync(path, `${JSON.stringify({ name, text } satisfies Note)}\n`)
}

export const read = (file: string): ReadonlyArray<Note> =>
  (existsSync(file) ? readFileSync(file, "utf8") : "").split("\n").filter((line) => line !== "").map((line): Note =>
    JSON.parse(line)
  )
