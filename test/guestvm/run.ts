/** `npm run test:guest`: tests in the guest VM. usage: run.ts [ARGS of `vitest run`]; without any, all that is meant for it. */
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { projectRoot } from "../support/Tree.ts"
import * as Report from "./Report.ts"
import { suites, test } from "./Suites.ts"
import { lacking, versions } from "./Vm.ts"

const minutes = Number(process.env["STOKER_GUEST_MINUTES"] ?? "45")

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
  const commit = Report.commitOf()
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
  // Of a file that was not run whole the report says nothing.
  if (!args.some((arg) => arg.startsWith("-"))) Report.write(results.files, commit)
  say(results.summary)
  return results.summary.startsWith("0 passed, ") && results.code === 0 ? 1 : results.code
}

process.exitCode = await main(process.argv.slice(2))
