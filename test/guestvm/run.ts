/** `npm run test:guest`: tests in the guest VM. usage: run.ts [ARGS of `vitest run`]; without any, all that is meant for it. */
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { projectRoot } from "../support/Tree.ts"
import * as Report from "./Report.ts"
import { suites, test } from "./Suites.ts"
import { lacking, versions } from "./Vm.ts"

const minutes = Number(process.env["STOKER_GUEST_MINUTES"] ?? "45")

const say = (line: string) => process.stdout.write(`${line}\n`)

interface Counts {
  passed: number
  failed: number
  skipped: number
}

/** One boot: what its files came to is written down when it ends, so a later one that does not end takes nothing away. */
const runOne = async (args: ReadonlyArray<string>, commit: string): Promise<Counts> => {
  const began = performance.now()
  const results = await test(args, {
    timeoutMs: minutes * 60_000,
    onOutput: (chunk) => process.stdout.write(chunk)
  })
  const seconds = Math.round((performance.now() - began) / 1000)
  writeFileSync(join(projectRoot, "build/guestvm/kernel.log"), results.log)
  say(`test:guest: ${args.join(" ")}: ${seconds} s; the guest's kernel messages are in build/guestvm/kernel.log`)
  if (results.summary === "" || results.code === undefined) {
    say(results.log.split("\n").slice(-25).join("\n"))
    say(
      `test:guest: the guest ${results.timedOut ? `took more than ${minutes} minutes` : "ended before it could sum up"}`
    )
    return { passed: 0, failed: 1, skipped: 0 }
  }
  // Of a file that was not run whole the report says nothing.
  if (!args.some((arg) => arg.startsWith("-"))) Report.write(results.files, commit)
  say(results.summary)
  const count = (word: string) => Number(new RegExp(`(\\d+) ${word}`).exec(results.summary)?.[1] ?? 0)
  const counts = { passed: count("passed"), failed: count("failed"), skipped: count("skipped") }
  // Errors beside the tests make vitest fail without a failed test.
  return results.code === 0 || counts.failed > 0 ? counts : { ...counts, failed: 1 }
}

const main = async (args: ReadonlyArray<string>): Promise<number> => {
  const missing = lacking()
  if (missing !== undefined) {
    say(`test:guest: no guest VM: ${missing}`)
    say("0 passed, 1 failed")
    return 1
  }
  const { kernel, qemu } = versions()
  say(`test:guest: ${kernel} in QEMU ${qemu}`)
  const commit = Report.commitOf()
  const all: Counts = { passed: 0, failed: 0, skipped: 0 }
  for (const one of args.length === 0 ? suites.map((suite) => [suite]) : [args]) {
    const { failed, passed, skipped } = await runOne(one, commit)
    all.passed += passed
    all.failed += failed
    all.skipped += skipped
  }
  say(`${all.passed} passed, ${all.failed} failed${all.skipped > 0 ? `, ${all.skipped} skipped` : ""}`)
  return all.passed === 0 || all.failed > 0 ? 1 : 0
}

process.exitCode = await main(process.argv.slice(2))
