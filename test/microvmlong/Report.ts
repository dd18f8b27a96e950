/** docs/microvm-report.md: what each test file came to when it was last run whole, on which machine, and at which commit. */
import { execFileSync } from "node:child_process"
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { availableParallelism, loadavg, totalmem } from "node:os"
import { join } from "node:path"
import type { TestFile } from "../guestvm/Suites.ts"
import { projectRoot } from "../support/Tree.ts"
import type { Note } from "./Notes.ts"

const path = join(projectRoot, "docs", "microvm-report.md")

const git = (...args: ReadonlyArray<string>) => execFileSync("git", args, { cwd: projectRoot, encoding: "utf8" }).trim()

/** What is run: the report of the last run is no change to it. */
export const commitOf = (): string => {
  const changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs/microvm-report.md") !== ""
  return `${git("rev-parse", "--short", "HEAD")}${changed ? ", changed" : ""}`
}

const count = (tests: TestFile["tests"], ...statuses: ReadonlyArray<string>) =>
  tests.filter(({ status }) => statuses.includes(status)).length

/** A cell of a table is one line without its border. */
const cell = (text: string) => text.replaceAll("|", "/").replaceAll(/\s+/g, " ")

/** Kept as rows, so that a later run of one file leaves the others' as they are. */
const rowOf = ({ broken, name, tests }: TestFile, notes: ReadonlyArray<Note>, at: string) => {
  const failed = count(tests, "failed") + (broken ? 1 : 0)
  const said = [
    ...notes.filter((note) => note.name === name).map(({ text }) => text),
    ...tests.filter(({ status }) => status === "failed").map(({ fullName }) => `failed: ${fullName}`)
  ].map(cell).join("; ")
  const skipped = count(tests, "skipped", "pending", "todo")
  return `| ${name} | ${count(tests, "passed")} | ${failed} | ${skipped} | ${at} | ${said} |`
}

const nameOf = (row: string): string | undefined => /^\| (test\/\S+) \|(?: \d+ \|){3} /.exec(row)?.[1]

/** Rows of the report as it is, by file; those of files that are gone are left out. */
const known = (): ReadonlyArray<readonly [name: string, row: string]> =>
  (existsSync(path) ? readFileSync(path, "utf8") : "").split("\n").flatMap((row) => {
    const name = nameOf(row)
    return name === undefined || !existsSync(join(projectRoot, name)) ? [] : [[name, row] as const]
  })

const machine = () => {
  const processor = /^model name\s*: (.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1] ?? "unknown processor"
  const kernel = readFileSync("/proc/sys/kernel/osrelease", "utf8").trim()
  const qemu = /version (.*)/.exec(execFileSync("qemu-system-x86_64", ["--version"], { encoding: "utf8" }))?.[1]
  const memory = `${(totalmem() / 1024 ** 3).toFixed(1)} GiB`
  return `${availableParallelism()} × ${processor}, ${memory}, Linux ${kernel}, QEMU ${qemu}, emulated (TCG)`
}

/** Puts what these files came to in place of what was known of them. */
export const write = (files: ReadonlyArray<TestFile>, notes: ReadonlyArray<Note>, commit: string): void => {
  const time = `${new Date().toISOString().slice(0, 16)}Z`
  const at = `${commit} | ${time}, load ${loadavg()[1]?.toFixed(0)}`
  const rows = new Map([...known(), ...files.map((file) => [file.name, rowOf(file, notes, at)] as const)])
  const sorted = [...rows].toSorted(([one], [other]) => one < other ? -1 : 1).map(([, row]) => row)
  writeFileSync(
    path,
    `# Tests of microVMs in real QEMU

Written by \`npm run test:microvm\`, a row for each file that was run whole; do not edit. Load is the host's at the end, over five
minutes: others worked beside the tests.

* machine of the last run: ${machine()}

| file | passed | failed | skipped | at commit | when | what it says |
|---|--:|--:|--:|---|---|---|
${sorted.join("\n")}
`
  )
}
