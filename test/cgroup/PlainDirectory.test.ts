/** The real system calls on a plain directory that stands in for cgroupfs: paths, formats, and what is not there. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { Cgroups } from "../../src/layers/cgroup/Cgroup.ts"
import * as CgroupsHost from "../../src/layers/cgroup/CgroupsHost.ts"

const root = Effect.acquireRelease(
  Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "stoker-test-cgroup-"))),
  (path) => Effect.sync(() => Fs.rmSync(path, { recursive: true }))
)

const put = (path: string, text: string) =>
  Effect.sync(() => {
    Fs.mkdirSync(Path.dirname(path), { recursive: true })
    Fs.writeFileSync(path, text)
  })
const text = (path: string) => Effect.sync(() => Fs.readFileSync(path, "utf8"))

describe("Cgroups on a plain directory", () => {
  it.effect("writes v1 limits into the files of each controller, never making one", () =>
    Effect.gen(function*() {
      const dir = yield* root
      const controllers = ["memory", "pids", "cpu", "cpuacct", "freezer"]
      yield* put(`${dir}/self/cgroup`, controllers.map((name, index) => `${index + 1}:${name}:/\n`).join(""))
      yield* put(
        `${dir}/self/mountinfo`,
        controllers.map((name) => `30 20 0:1 / ${dir}/${name} rw - cgroup cgroup rw,${name}\n`).join("")
      )
      for (const name of controllers) yield* put(`${dir}/${name}/cgroup.procs`, "")
      yield* Effect.gen(function*() {
        const group = yield* (yield* Cgroups).make("job")
        assert.strictEqual(group.path, `${dir}/memory/stoker-a/job`)
        assert.strictEqual((yield* Effect.flip(group.limit({ pids: 5 }))).code, "ENOENT")
        const files = [
          ["memory/stoker-a/job/memory.limit_in_bytes", "1048576"],
          ["memory/stoker-a/job/memory.memsw.limit_in_bytes", "1048576"],
          ["pids/stoker-a/job/pids.max", "5"],
          ["cpu/stoker-a/job/cpu.cfs_quota_us", "150000"],
          ["cpu/stoker-a/job/cpu.shares", "512"]
        ] as const
        for (const [file] of files) yield* put(`${dir}/${file}`, "")
        yield* group.limit({ memoryBytes: 1048576, pids: 5, cpus: 1.5, cpuWeight: 50 })
        for (const [file, expected] of files) assert.strictEqual(yield* text(`${dir}/${file}`), expected)
        assert.strictEqual((yield* Effect.flip(group.usage)).code, "ENOENT")
        yield* put(`${dir}/cpuacct/stoker-a/job/cpuacct.usage`, "2000000\n")
        const usage = yield* group.usage
        assert.strictEqual(usage.cpuMicros, 2000)
        assert.isUndefined(usage.memoryPeakBytes)
        assert.isUndefined(usage.oomKills)
      }).pipe(Effect.provide(CgroupsHost.layer({ instance: "a", proc: dir })))
    }))

  it.effect("writes v2 limits into the one directory, and reads what is there", () =>
    Effect.gen(function*() {
      const dir = yield* root
      yield* put(`${dir}/self/cgroup`, "0::/\n")
      yield* put(`${dir}/self/mountinfo`, `30 20 0:1 / ${dir}/v2 rw - cgroup2 cgroup2 rw\n`)
      yield* put(`${dir}/v2/cgroup.controllers`, "cpuset cpu io memory pids\n")
      yield* put(`${dir}/v2/cgroup.subtree_control`, "")
      yield* put(`${dir}/v2/stoker-a/cgroup.subtree_control`, "")
      yield* Effect.gen(function*() {
        assert.strictEqual(yield* text(`${dir}/v2/stoker-a/cgroup.subtree_control`), "+memory +pids +cpu +io")
        const group = yield* (yield* Cgroups).make("job")
        const file = (name: string) => `${dir}/v2/stoker-a/job/${name}`
        for (const name of ["memory.max", "memory.swap.max", "pids.max", "cpu.max", "cpu.weight"]) {
          yield* put(file(name), "")
        }
        yield* group.limit({ memoryBytes: 1048576, swapBytes: 4096, pids: 5, cpus: 1.5, cpuWeight: 50 })
        assert.strictEqual(yield* text(file("memory.max")), "1048576")
        assert.strictEqual(yield* text(file("memory.swap.max")), "4096")
        assert.strictEqual(yield* text(file("pids.max")), "5")
        assert.strictEqual(yield* text(file("cpu.max")), "150000 100000")
        assert.strictEqual(yield* text(file("cpu.weight")), "50")
        yield* put(file("cpu.stat"), "usage_usec 9\nuser_usec 5\nsystem_usec 4\n")
        yield* put(file("cgroup.events"), "populated 1\nfrozen 0\n")
        assert.strictEqual((yield* group.usage).cpuSystemMicros, 4)
        assert.isFalse(yield* group.isEmpty)
        assert.strictEqual((yield* Effect.flip((yield* Cgroups).make("job"))).code, "EEXIST")
      }).pipe(Effect.provide(CgroupsHost.layer({ instance: "a", proc: dir })))
    }))
})
