/** The systemd unit, as systemd's own examination sees it. */
import { assert, describe, it } from "@effect/vitest"
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { standardConfig } from "../../src/schemas/WorkerConfig.ts"
import { run } from "../support/Run.ts"
import { projectRoot, Tree } from "../support/Tree.ts"

const unit = readFileSync(join(projectRoot, "infra/systemd/stoker.service"), "utf8")
const setting = (name: string) => new RegExp(`^${name}=(.*)$`, "m").exec(unit)?.[1] ?? ""
const analyze = "/usr/bin/systemd-analyze"

describe("the systemd unit", () => {
  it.skipIf(!existsSync(analyze))("is a unit as systemd has them", async () => {
    // Its program is not on this machine; one that is stands in for it.
    using tree = Tree.of({ "stoker.service": unit.replace(/^ExecStart=\S+/m, "ExecStart=/bin/true") })
    const { stderr } = await run(analyze, [
      "verify",
      "--man=no",
      "--recursive-errors=no",
      join(tree.path, "stoker.service")
    ])
    // Known from systemd 254 on, and ignored before.
    const faults = stderr.split("\n").filter((line) => line !== "" && !line.includes("'DelegateSubgroup'"))
    assert.deepStrictEqual(faults, [])
  })

  it.skipIf(!existsSync(analyze))("would not pass with a word that is none", async () => {
    using tree = Tree.of({
      "stoker.service": unit.replace(/^ExecStart=\S+/m, "ExecStart=/bin/true").replace(
        "KillMode=mixed",
        "KillMode=some"
      )
    })
    const { stderr } = await run(analyze, [
      "verify",
      "--man=no",
      "--recursive-errors=no",
      join(tree.path, "stoker.service")
    ])
    assert.match(stderr, /KillMode|kill mode/i)
  })

  it("delegates the cgroup, and waits longer than a drain takes", () => {
    assert.strictEqual(setting("Delegate"), "cpu cpuset io memory pids")
    assert.strictEqual(setting("DelegateSubgroup"), "stoker-worker")
    assert.strictEqual(setting("KillMode"), "mixed")
    assert.isAtLeast(Number(setting("TimeoutStopSec")) * 1000, standardConfig.drainMs + 30_000)
  })
})
