/** `npm run test:guest`: tests in the guest VM. usage: run.ts [ARGS of `vitest run`]; without any, all that is meant for it. */
import { execFileSync } from "node:child_process"
import { mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { projectRoot } from "../support/Tree.ts"
import { type Results, suites, test } from "./Suites.ts"
import { lacking, versions } from "./Vm.ts"

const minutes = Number(process.env["STOKER_GUEST_MINUTES"] ?? "45")

const git = (...args: ReadonlyArray<string>) => execFileSync("git", args, { cwd: projectRoot, encoding: "utf8" }).trim()

const count = (tests: ReadonlyArray<{ readonly status: string }>, ...statuses: ReadonlyArray<string>) =>
  tests.filter(({ status }) => statuses.includes(status)).length

/** What is run: the report of the last run is no change to it. */
const commitOf = () => {
  const changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs/guest-report.md") !== ""
  return `${git("rev-parse", "HEAD")}${changed ? ", with changes not committed" : ""}`
}

/** What a whole run leaves in the repository. */
const page = ({ files, summary }: Results, seconds: number, commit: string) => {
  const { kernel, qemu } = versions()
  const rows = files.map(({ broken, name, tests }) => {
    const failed = count(tests, "failed") + (broken ? 1 : 0)
    return `| ${name} | ${count(tests, "passed")} | ${failed} | ${count(tests, "skipped", "pending", "todo")} |`
  })
  return `# Tests on a real cgroup v2 kernel

Written by \`npm run test:guest\`; do not edit. A QEMU machine without hardware virtualisation, cgroup v2 alone, 2 cores,
2 GiB, this checkout inside (\`test/guestvm\`).

* ${summary}, in ${seconds} s
* commit ${commit}
* ${new Date().toISOString().slice(0, 16)}Z
* kernel: Debian ${kernel}
* QEMU ${qemu}, TCG

| file | passed | failed | skipped |
|---|--:|--:|--:|
${rows.join("\n")}
`
}

const main = async (args: ReadonlyArray<string>): Promise<number> => {
  const say = (line: string) => process.stdout.write(`${line}\n`)
  const missing = lacking()
  if (missing !== undefined) {
    say(`test:guest: no guest VM: ${missing}`)
    say("0 passed, 1 failed")
    return 1
  }
  const { kernel, qemu } = versions()
  say(`test:guest: ${kernel} in QEMU ${qemu}`)
  const commit = commitOf()
  const began = performance.now()
  const results = await test(args.length === 0 ? suites : args, {
    timeoutMs: minutes * 60_000,
    onOutput: (chunk) => process.stdout.write(chunk)
  })
  const seconds = Math.round((performance.now() - began) / 1000)
  writeFileSync(join(projectRoot, "build/guestvm/kernel.log"), results.log)
  say(`test:guest: ${seconds} s; the guest's kernel messages are in build/guestvm/kernel.log`)
  if (results.summary === "" || results.code === undefined) {
    say(results.log.split("\n").slice(-25).join("\n"))
    say(
      `test:guest: the guest ${results.timedOut ? `took more than ${minutes} minutes` : "ended before it could sum up"}`
    )
    say("0 passed, 1 failed")
    return 1
  }
  if (args.length === 0) {
    mkdirSync(join(projectRoot, "docs"), { recursive: true })
    writeFileSync(join(projectRoot, "docs/guest-report.md"), page(results, seconds, commit))
  }
  say(results.summary)
  return results.summary.startsWith("0 passed, ") && results.code === 0 ? 1 : results.code
}

process.exitCode = await main(process.argv.slice(2))
