/** docs/guest-report.md: what each test file came to when it was last run whole in the guest VM, and at which commit. */
import { execFileSync } from "node:child_process"
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { projectRoot } from "../support/Tree.ts"
import type { TestFile } from "./Suites.ts"
import { versions } from "./Vm.ts"

const path = join(projectRoot, "docs", "guest-report.md")

const git = (...args: ReadonlyArray<string>) => execFileSync("git", args, { cwd: projectRoot, encoding: "utf8" }).trim()

/** What is run: the report of the last run is no change to it. */
export const commitOf = (): string => {
  const changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs/guest-report.md") !== ""
  return `${git("rev-parse", "--short", "HEAD")}${changed ? ", changed" : ""}`
}

const count = (tests: TestFile["tests"], ...statuses: ReadonlyArray<string>) =>
  tests.filter(({ status }) => statuses.includes(status)).length

const rowOf = ({ broken, name, tests }: TestFile, commit: string): readonly [name: string, row: string] => {
  const failed = count(tests, "failed") + (broken ? 1 : 0)
  const skipped = count(tests, "skipped", "pending", "todo")
  return [name, `| ${name} | ${count(tests, "passed")} | ${failed} | ${skipped} | ${commit} |`]
}

/** Rows of the report as it is, by file; those of files that are gone are left out. */
const known = (): ReadonlyArray<readonly [name: string, row: string]> =>
  (existsSync(path) ? readFileSync(path, "utf8") : "").split("\n").flatMap((row) => {
    const name = /^\| (test\/\S+) \|(?: \d+ \|){3} \S.* \|$/.exec(row)?.[1]
    return name === undefined || !existsSync(join(projectRoot, name)) ? [] : [[name, row]]
  })

const sum = (rows: Iterable<string>, column: number) =>
  [...rows].reduce((total, row) => total + Number(row.split("|")[column]), 0)

/** Puts what these files came to in place of what was known of them. */
export const write = (files: ReadonlyArray<TestFile>, commit: string): void => {
  const rows = new Map([...known(), ...files.map((file) => rowOf(file, commit))])
  const sorted = [...rows].toSorted(([one], [other]) => one < other ? -1 : 1).map(([, row]) => row)
  const { kernel, qemu } = versions()
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(
    path,
    `# Tests on a real cgroup v2 kernel

Written by \`npm run test:guest\`, a row for each file that was run whole; do not edit. A QEMU machine without hardware
virtualisation, cgroup v2 alone, 2 cores, 2 GiB, the checkout inside (\`test/guestvm\`).

* ${sum(sorted, 2)} passed, ${sum(sorted, 3)} failed, ${sum(sorted, 4)} skipped
* ${new Date().toISOString().slice(0, 16)}Z
* kernel: Debian ${kernel}
* QEMU ${qemu}, TCG

| file | passed | failed | skipped | at commit |
|---|--:|--:|--:|---|
${sorted.join("\n")}
`
  )
}
