/**
 * The short form of `npm run test:guest`: cgroup v2 and a few jobs on a kernel that has nothing else. Skipped, with the
 * reason, where no such machine can be had.
 */
import { assert, describe, it } from "@effect/vitest"
import { spawn } from "node:child_process"
import { existsSync, readdirSync, readFileSync, readlinkSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { projectEnv } from "../support/Run.ts"
import { projectRoot } from "../support/Tree.ts"
import { until } from "../worker/until.ts"
import { type Results, test } from "./Suites.ts"
import { boot, lacking } from "./Vm.ts"

const missing = lacking()
if (missing !== undefined) process.stdout.write(`guest VM skipped: ${missing}\n`)

const minutes = (count: number) => count * 60_000

/** The command's output, for when it is not what was expected. */
const shell = async (script: string, timeoutMs = minutes(2)) => {
  let output = ""
  const onOutput = (chunk: Buffer) => {
    output += chunk.toString()
  }
  const ended = await boot({ command: ["/bin/sh", "-c", script], timeoutMs, onOutput })
  return { ...ended, output }
}

const names = () => readdirSync(join(projectRoot, "build/guestvm"))
const runs = () => names().filter((name) => name.startsWith(`run-${process.pid}-`))

/** QEMU runs in the machine's folder, the file server names it. */
const processesOf = (folder: string) =>
  readdirSync("/proc").filter((pid) => {
    if (!/^\d+$/.test(pid)) return false
    try {
      return `${readlinkSync(`/proc/${pid}/cwd`)} ${readFileSync(`/proc/${pid}/cmdline`, "utf8")}`.includes(folder)
    } catch {
      return false // gone, or a thread of the kernel
    }
  })

describe("the guest VM", () => {
  it("is a machine with cgroup v2 alone, whose writes do not reach this one", async (context) => {
    if (missing !== undefined) return context.skip(missing)
    const mark = join(projectRoot, "build", `guest-wrote-${process.pid}`)
    const { code, log, output, summary } = await shell(`
      grep -c cgroup /proc/mounts
      grep ' /sys/fs/cgroup ' /proc/mounts
      cat /sys/fs/cgroup/cgroup.subtree_control
      cat /sys/block/vda/queue/scheduler
      stat -f -c %T /mnt/disk
      ls /sys/class/net
      echo x >${mark} && cat ${mark}
      mkdir /lower && mount -t virtiofs host /lower && touch /lower${mark} 2>&1
      exit 7`)
    assert.strictEqual(code, 7, output + log)
    assert.strictEqual(summary, "")
    const lines = output.split("\n")
    assert.strictEqual(lines[0], "1")
    assert.match(lines[1] ?? "", /^cgroup2 \/sys\/fs\/cgroup cgroup2 /)
    assert.strictEqual(lines[2], "cpuset cpu io memory pids")
    assert.deepStrictEqual(lines.slice(3, 7), ["mq-deadline [bfq] none", "ext2/ext3", "lo", "x"])
    assert.match(lines[7] ?? "", /Read-only file system/)
    assert.isFalse(existsSync(mark))
    assert.deepStrictEqual(runs(), [])
  }, minutes(3))

  it("says nothing was run when the machine dies, and ends one that takes too long", async (context) => {
    if (missing !== undefined) return context.skip(missing)
    const died = await shell("echo going; echo c >/proc/sysrq-trigger; sleep 100")
    assert.deepStrictEqual([died.code, died.timedOut], [undefined, false])
    assert.include(died.log, "sysrq triggered crash")
    const slow = await shell("sleep 1000", 5000)
    assert.deepStrictEqual([slow.code, slow.timedOut], [undefined, true])
    assert.deepStrictEqual(runs(), [])
  }, minutes(5))

  it("is gone with its owner, and its files with the next one", async (context) => {
    if (missing !== undefined) return context.skip(missing)
    const owner = spawn("node", [join(import.meta.dirname, "sleeper.ts")], { env: projectEnv })
    let said = ""
    owner.stdout.on("data", (chunk: Buffer) => {
      said += chunk.toString()
    })
    owner.stderr.on("data", (chunk: Buffer) => {
      said += chunk.toString()
    })
    const folder = `run-${owner.pid}-`
    try {
      await until(`the machine is up ${said}`, () => said.includes("up\n"), 120_000)
      assert.isAtLeast(processesOf(folder).length, 2)
    } finally {
      owner.kill("SIGKILL")
    }
    await until("machine and file server are gone", () => processesOf(folder).length === 0)
    assert.strictEqual(names().filter((name) => name.startsWith(folder)).length, 1)
    assert.strictEqual((await shell("exit 0")).code, 0)
    assert.strictEqual(names().filter((name) => name.startsWith(folder)).length, 0)
  }, minutes(5))

  it("holds limits on cgroup v2, for groups and for jobs in sandboxes", async (context) => {
    if (missing !== undefined) return context.skip(missing)
    let output = ""
    const results: Results = await test(
      [
        "test/cgroup/Host.test.ts",
        "test/cgroup/HostV2Core.test.ts",
        "test/conformance/Oci.test.ts",
        "-t",
        "Cgroups|what compiles is run|OutOfMemory when|a fork bomb is held"
      ],
      {
        timeoutMs: minutes(8),
        onOutput: (chunk) => {
          output += chunk.toString()
        }
      }
    )
    // Kept because a second try that passes hides the first.
    const attempt = (context.task.result?.retryCount ?? 0) + 1
    writeFileSync(join(projectRoot, `build/guestvm/short.${attempt}.log`), `${output}${results.log}`)
    assert.strictEqual(results.code, 0, output + results.log)
    assert.match(results.summary, /^\d+ passed, 0 failed/)
    const passed = (file: string) =>
      results.files.find(({ name }) => name === file)?.tests.filter(({ status }) => status === "passed").length ?? 0
    assert.isAtLeast(passed("test/cgroup/Host.test.ts"), 9)
    assert.isAtLeast(passed("test/cgroup/HostV2Core.test.ts"), 5)
    assert.strictEqual(passed("test/conformance/Oci.test.ts"), 4)
  }, minutes(10))
})
