import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Option } from "effect"
import { TestClock } from "effect/testing"
import { Cgroups } from "../../src/layers/cgroup/Cgroup.ts"
import * as CgroupsHost from "../../src/layers/cgroup/CgroupsHost.ts"
import { CgroupsTest, layerTest } from "../../src/layers/cgroup/CgroupsTest.ts"
import * as FakeKernel from "../../src/layers/cgroup/FakeKernel.ts"

const on = (kernel: FakeKernel.FakeKernel, instance = "a") => CgroupsHost.layer({ instance, syscalls: kernel })

const v1 = (name: string) => `/sys/fs/cgroup/${name}/stoker-a/job`
const v2 = "/sys/fs/cgroup/stoker-a/job"

describe("Cgroups v1", () => {
  it.effect("writes each limit once, memory before memory and swap", () => {
    const kernel = FakeKernel.make("v1")
    return Effect.gen(function*() {
      const cgroups = yield* Cgroups
      const group = yield* cgroups.make("job")
      assert.strictEqual(group.path, v1("memory"))
      assert.deepStrictEqual(
        group.procsFiles,
        ["memory", "pids", "cpu", "cpuacct", "freezer"].map((name) => `${v1(name)}/cgroup.procs`)
      )
      yield* group.limit({ memoryBytes: 1000, swapBytes: 24, pids: 8, cpus: 0.5, cpuWeight: 100 })
      assert.deepStrictEqual(kernel.calls, [
        `${v1("memory")}/memory.limit_in_bytes 1000`,
        `${v1("memory")}/memory.memsw.limit_in_bytes 1024`,
        `${v1("pids")}/pids.max 8`,
        `${v1("cpu")}/cpu.cfs_quota_us 50000`,
        `${v1("cpu")}/cpu.shares 1024`
      ])
    }).pipe(Effect.provide(on(kernel)))
  })

  it.effect("limits I/O and cores where it was asked for them, and nothing that v1 does not have", () => {
    const kernel = FakeKernel.make("v1")
    kernel.set("/sys/fs/cgroup/cpuset/cpuset.cpus", "0-3\n")
    kernel.set("/sys/fs/cgroup/cpuset/cpuset.mems", "0\n")
    return Effect.gen(function*() {
      const cgroups = yield* Cgroups
      assert.deepStrictEqual([...cgroups.holds], ["cpu-weight", "swap", "io-max"])
      assert.include(cgroups.lacks("memory-high").reason, "cgroup v1 does not have it")
      const group = yield* cgroups.make("job")
      yield* group.limit({ ioMax: { devices: ["8:0", "8:16"], writeBytesPerSec: 1000 }, cpuset: "1" })
      assert.strictEqual(kernel.read(`${v1("blkio")}/blkio.throttle.write_bps_device`), "8:16 1000")
      assert.strictEqual(kernel.read(`${v1("blkio")}/blkio.throttle.read_bps_device`), "8:16 0")
      assert.strictEqual(kernel.read(`${v1("cpuset")}/cpuset.cpus`), "1")
      // Nobody could enter a group without cores and memory.
      assert.strictEqual(kernel.read("/sys/fs/cgroup/cpuset/stoker-a/cpuset.cpus"), "0-3")
      assert.include(kernel.calls, "/sys/fs/cgroup/cpuset/stoker-a/cgroup.clone_children 1")
      for (const limits of [{ memoryHighBytes: 1 }, { oomGroup: true }, { ioWeight: 50 }]) {
        assert.include((yield* Effect.flip(group.limit(limits))).message, "cgroup v1 has no")
      }
      yield* group.limit({ memoryHighBytes: Infinity, oomGroup: false, ioWeight: 100 })
    }).pipe(Effect.provide(CgroupsHost.layer({ instance: "a", syscalls: kernel, io: true, cpuset: true })))
  })

  it.effect("says that limits of I/O need to be asked for", () =>
    Effect.gen(function*() {
      const cgroups = yield* Cgroups
      assert.isFalse(cgroups.holds.has("io-max"))
      assert.include(cgroups.lacks("io-max").remedy, "ioWrite")
    }).pipe(Effect.provide(on(FakeKernel.make("v1")))))

  it.effect("lowers and raises memory in the order that the kernel allows", () => {
    const kernel = FakeKernel.make("v1")
    return Effect.gen(function*() {
      const group = yield* (yield* Cgroups).make("job")
      for (const memoryBytes of [1000, 500, 2000, 2000, Infinity, 10]) yield* group.limit({ memoryBytes })
      assert.strictEqual(kernel.read(`${v1("memory")}/memory.limit_in_bytes`), "10")
      assert.strictEqual(kernel.read(`${v1("memory")}/memory.memsw.limit_in_bytes`), "10")
      yield* group.limit({ swapBytes: 5 })
      assert.strictEqual(kernel.read(`${v1("memory")}/memory.memsw.limit_in_bytes`), "15")
    }).pipe(Effect.provide(on(kernel)))
  })

  it.effect("says why memory cannot go below what is held", () => {
    const kernel = FakeKernel.make("v1")
    return Effect.gen(function*() {
      const group = yield* (yield* Cgroups).make("job")
      kernel.set(`${v1("memory")}/memory.usage_in_bytes`, "4096\n")
      const error = yield* Effect.flip(group.limit({ memoryBytes: 100 }))
      assert.strictEqual(error.code, "EBUSY")
      assert.include(error.message, "hold 4096 bytes")
    }).pipe(Effect.provide(on(kernel)))
  })

  it.effect("goes without a swap limit only where there is no swap", () => {
    const kernel = FakeKernel.make("v1")
    return Effect.gen(function*() {
      const group = yield* (yield* Cgroups).make("job")
      kernel.drop(`${v1("memory")}/memory.memsw.limit_in_bytes`)
      kernel.set("/proc/swaps", "Filename Type Size Used Priority\n/dev/vdb partition 100 0 -2\n")
      assert.include((yield* Effect.flip(group.limit({ memoryBytes: 1 }))).message, "swapaccount=1")
    }).pipe(Effect.provide(on(kernel)))
  })

  it.effect("reports what the kernel counts, and nothing for what it does not tell", () => {
    const kernel = FakeKernel.make("v1")
    return Effect.gen(function*() {
      const group = yield* (yield* Cgroups).make("job")
      kernel.set(`${v1("cpuacct")}/cpuacct.usage`, "1500499\n")
      kernel.set(`${v1("cpuacct")}/cpuacct.stat`, "user 2\nsystem 1\n")
      kernel.set(`${v1("cpu")}/cpu.stat`, "nr_periods 9\nnr_throttled 2\nthrottled_time 940000\n")
      kernel.set(`${v1("memory")}/memory.max_usage_in_bytes`, "77\n")
      kernel.set(`${v1("memory")}/memory.stat`, "cache 1\nrss 2\ntotal_cache 30\ntotal_rss 40\ntotal_shmem 10\n")
      kernel.set(`${v1("memory")}/memory.oom_control`, "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
      kernel.set(`${v1("pids")}/pids.events`, "max 219\n")
      kernel.drop(`${v1("pids")}/pids.peak`)
      assert.deepStrictEqual(yield* group.usage, {
        cpuMicros: 1500,
        cpuUserMicros: 1000,
        cpuSystemMicros: 500,
        throttledMicros: 940,
        memoryPeakBytes: 77,
        pidsPeak: undefined,
        pidsMaxHits: 219,
        oomKills: 3,
        ioReadBytes: undefined,
        ioWriteBytes: undefined
      })
      assert.deepStrictEqual(yield* group.memory, { anonBytes: 40, cacheBytes: 20, tmpfsBytes: 10 })
      assert.deepStrictEqual(yield* group.now, { cpuMicros: 1500, memoryBytes: 0, pids: 0 })
      assert.isTrue(yield* group.resetPeak)
      assert.strictEqual(kernel.read(`${v1("memory")}/memory.max_usage_in_bytes`), "0")
    }).pipe(Effect.provide(on(kernel)))
  })

  it.effect("freezes, kills and thaws, below and on every controller", () => {
    const kernel = FakeKernel.make("v1")
    return Effect.gen(function*() {
      const group = yield* (yield* Cgroups).make("job")
      kernel.mkdir(`${v1("pids")}/below`)
      kernel.write(`${v1("freezer")}/cgroup.procs`, "100001")
      kernel.write(`${v1("pids")}/below/cgroup.procs`, "100002") // a launcher that got no further
      assert.deepStrictEqual(yield* group.pids, [100_002, 100_001])
      assert.isFalse(yield* group.isEmpty)
      yield* group.kill
      assert.isTrue(yield* group.isEmpty)
      assert.deepStrictEqual(kernel.calls.filter((call) => call.includes("freezer.state")), [
        `${v1("freezer")}/freezer.state FROZEN`,
        `${v1("freezer")}/freezer.state THAWED`
      ])
      yield* group.remove
      assert.isFalse(kernel.exists(v1("pids")))
    }).pipe(Effect.provide(on(kernel)))
  })

  it.effect("kills the others and thaws when one signal is refused", () => {
    const kernel = FakeKernel.make("v1")
    return Effect.gen(function*() {
      const group = yield* (yield* Cgroups).make("job")
      for (const pid of [100_001, 100_002]) {
        kernel.write(`${v1("freezer")}/cgroup.procs`, `${pid}`)
      }
      kernel.failNext("kill", "pid 100001", "EPERM")
      assert.strictEqual((yield* Effect.flip(group.kill)).code, "EPERM")
      assert.deepStrictEqual(yield* group.pids, [100_001])
      assert.strictEqual(kernel.read(`${v1("freezer")}/freezer.state`), "THAWED")
    }).pipe(Effect.provide(on(kernel)))
  })

  it.effect("lies below the worker's own cgroup in every controller", () =>
    Effect.gen(function*() {
      assert.strictEqual((yield* Cgroups).directories[0], "/sys/fs/cgroup/memory/box/7/stoker-a")
    }).pipe(Effect.provide(on(FakeKernel.make("v1", "/box/7")))))

  it.effect("uses one directory for controllers that are mounted together", () => {
    const kernel = FakeKernel.make("v1")
    kernel.set(
      "/proc/self/mountinfo",
      kernel.read("/proc/self/mountinfo").split("\n").filter((line) => !/cpuacct|freezer/.test(line)).join("\n")
        .replace("rw,cpu\n", "rw,cpu,cpuacct\n")
    )
    return Effect.gen(function*() {
      const group = yield* (yield* Cgroups).make("job")
      assert.strictEqual(group.procsFiles.length, 3)
      kernel.write(`${v1("pids")}/cgroup.procs`, "100001")
      yield* group.kill // without a freezer
      assert.isTrue(yield* group.isEmpty)
      assert.include((yield* Effect.flip(group.freeze)).message, "no v1 freezer")
    }).pipe(Effect.provide(on(kernel)))
  })

  it.effect("names the controller that is missing", () => {
    const kernel = FakeKernel.make("v1")
    const mountinfo = kernel.read("/proc/self/mountinfo").split("\n").filter((line) => !line.includes("/pids "))
    kernel.set("/proc/self/mountinfo", mountinfo.join("\n"))
    return Effect.gen(function*() {
      const error = yield* Effect.flip(Effect.scoped(Effect.provide(Effect.asVoid(Cgroups), on(kernel))))
      assert.deepStrictEqual(error.missing, ["pids"])
    })
  })
})

describe("Cgroups v2", () => {
  it.effect("enables the controllers down to the instance, then writes each limit once", () => {
    const kernel = FakeKernel.make("v2")
    return Effect.gen(function*() {
      const cgroups = yield* Cgroups
      assert.strictEqual(cgroups.version, "v2")
      const group = yield* cgroups.make("job")
      assert.deepStrictEqual(group.procsFiles, [`${v2}/cgroup.procs`])
      yield* group.limit({ memoryBytes: 1000, pids: 8, cpus: 0.5, cpuWeight: 200 })
      assert.deepStrictEqual(kernel.calls, [
        "/sys/fs/cgroup/cgroup.subtree_control +memory +pids +cpu +io",
        "/sys/fs/cgroup/stoker-a/cgroup.subtree_control +memory +pids +cpu +io",
        `${v2}/memory.max 1000`,
        `${v2}/memory.swap.max 0`,
        `${v2}/pids.max 8`,
        `${v2}/cpu.max 50000 100000`,
        `${v2}/cpu.weight 200`
      ])
      yield* group.limit({ cpus: Infinity })
      assert.strictEqual(kernel.read(`${v2}/cpu.max`), "max 100000")
    }).pipe(Effect.provide(on(kernel)))
  })

  it.effect("writes the further limits as the kernel reads them, each device by itself", () => {
    const kernel = FakeKernel.make("v2")
    return Effect.gen(function*() {
      const cgroups = yield* Cgroups
      assert.deepStrictEqual(
        [...cgroups.holds],
        ["cpu-weight", "memory-high", "swap", "oom-group", "io-weight", "io-max"]
      )
      const group = yield* cgroups.make("job")
      const before = kernel.calls.length
      yield* group.limit({
        memoryHighBytes: 1000,
        oomGroup: true,
        ioWeight: 50,
        ioMax: { devices: ["8:0", "8:16"], readBytesPerSec: 1e6, writesPerSec: 10 },
        cpuset: "0-1,3"
      })
      assert.deepStrictEqual(kernel.calls.slice(before), [
        `${v2}/memory.high 1000`,
        `${v2}/memory.oom.group 1`,
        `${v2}/io.weight default 50`,
        `${v2}/io.max 8:0 rbps=1000000 wbps=max riops=max wiops=10`,
        `${v2}/io.max 8:16 rbps=1000000 wbps=max riops=max wiops=10`,
        `${v2}/cpuset.cpus 0-1,3`
      ])
      yield* group.limit({ memoryHighBytes: Infinity, ioMax: { devices: ["8:0"] } })
      assert.strictEqual(kernel.read(`${v2}/memory.high`), "max")
      assert.strictEqual(kernel.read(`${v2}/io.max`), "8:0 rbps=max wbps=max riops=max wiops=max")
    }).pipe(Effect.provide(CgroupsHost.layer({ instance: "a", syscalls: kernel, cpuset: true })))
  })

  it.effect("holds what the kernel has files for, and says what it lacks", () => {
    const kernel = FakeKernel.make("v2")
    kernel.failNext("read", "/stoker-a/io.max", "ENOENT")
    kernel.failNext("read", "/stoker-a/memory.oom.group", "ENOENT")
    return Effect.gen(function*() {
      const cgroups = yield* Cgroups
      assert.deepStrictEqual([...cgroups.holds], ["cpu-weight", "memory-high", "swap", "io-weight"])
      assert.include(cgroups.lacks("oom-group").reason, "offers no memory.oom.group")
    }).pipe(Effect.provide(on(kernel)))
  })

  it.effect("refuses a memory limit that would kill, but not one that only drops page cache", () => {
    const kernel = FakeKernel.make("v2")
    return Effect.gen(function*() {
      const group = yield* (yield* Cgroups).make("job")
      kernel.set(`${v2}/memory.current`, "900\n")
      kernel.set(`${v2}/memory.stat`, "anon 300\nfile 600\nshmem 100\n")
      assert.strictEqual((yield* Effect.flip(group.limit({ memoryBytes: 399 }))).code, "EBUSY")
      assert.strictEqual(kernel.read(`${v2}/memory.max`), "max")
      yield* group.limit({ memoryBytes: 400 })
    }).pipe(Effect.provide(on(kernel)))
  })

  it.effect("reports what the kernel counts, and nothing for what it does not tell", () => {
    const kernel = FakeKernel.make("v2")
    return Effect.gen(function*() {
      const group = yield* (yield* Cgroups).make("job")
      kernel.set(`${v2}/cpu.stat`, "usage_usec 30\nuser_usec 20\nsystem_usec 10\nthrottled_usec 5\n")
      kernel.set(`${v2}/memory.events`, "low 0\nhigh 0\nmax 4\noom 2\noom_kill 1\n")
      kernel.set(`${v2}/memory.stat`, "anon 40\nfile 30\nshmem 10\n")
      kernel.set(`${v2}/io.stat`, "254:0 rbytes=1 wbytes=2 rios=1 wios=1\n")
      kernel.set(`${v2}/cpu.pressure`, "some avg10=12.50 avg60=0.00 avg300=0.00 total=7\nfull avg10=9.00 total=5\n")
      kernel.drop(`${v2}/memory.peak`)
      kernel.drop(`${v2}/pids.peak`)
      kernel.failNext("read", "/io.pressure", "EOPNOTSUPP", 2) // booted with psi=0
      const usage = yield* group.usage
      assert.deepStrictEqual(usage, {
        cpuMicros: 30,
        cpuUserMicros: 20,
        cpuSystemMicros: 10,
        throttledMicros: 5,
        memoryPeakBytes: undefined,
        pidsPeak: undefined,
        pidsMaxHits: 0,
        oomKills: 1,
        ioReadBytes: 1,
        ioWriteBytes: 2,
        cpuPressureMicros: 7,
        memoryPressureMicros: 0,
        ioPressureMicros: undefined
      })
      assert.deepStrictEqual(yield* group.pressure, { cpu: 0.125, memory: 0, io: undefined })
      assert.deepStrictEqual(yield* group.memory, { anonBytes: 40, cacheBytes: 20, tmpfsBytes: 10 })
      assert.deepStrictEqual(yield* group.now, { cpuMicros: 30, memoryBytes: 0, pids: 0 })
    }).pipe(Effect.provide(on(kernel)))
  })

  it.effect("resets the peak through one descriptor, closed with the group by any handle", () => {
    const kernel = FakeKernel.make("v2")
    return Effect.gen(function*() {
      const cgroups = yield* Cgroups
      const group = yield* cgroups.make("job")
      kernel.set(`${v2}/memory.peak`, "900\n")
      kernel.set(`${v2}/memory.current`, "20\n")
      assert.isTrue(yield* group.resetPeak)
      assert.strictEqual((yield* group.usage).memoryPeakBytes, 20)
      yield* cgroups.open("job").remove
      assert.include(kernel.calls, `close ${v2}/memory.peak`)
    }).pipe(Effect.provide(on(kernel)))
  })

  it.effect("says that an older kernel cannot reset the peak", () => {
    const kernel = FakeKernel.make("v2")
    return Effect.gen(function*() {
      const group = yield* (yield* Cgroups).make("job")
      kernel.set(`${v2}/memory.peak`, "900\n")
      kernel.failNext("write", "memory.peak", "EINVAL")
      assert.isFalse(yield* group.resetPeak)
      assert.strictEqual((yield* group.usage).memoryPeakBytes, 900)
      assert.include(kernel.calls, `close ${v2}/memory.peak`)
    }).pipe(Effect.provide(on(kernel)))
  })

  it.effect("kills without cgroup.kill on an older kernel", () => {
    const kernel = FakeKernel.make("v2")
    return Effect.gen(function*() {
      const group = yield* (yield* Cgroups).make("job")
      kernel.write(`${v2}/cgroup.procs`, "100001")
      kernel.drop(`${v2}/cgroup.kill`)
      yield* group.kill
      assert.isTrue(yield* group.isEmpty)
    }).pipe(Effect.provide(on(kernel)))
  })

  it.effect("moves itself, and nobody else, out of its own cgroup", () => {
    const kernel = FakeKernel.make("v2", "/system.slice/stoker.service")
    const own = "/sys/fs/cgroup/system.slice/stoker.service"
    return Effect.gen(function*() {
      assert.deepStrictEqual((yield* Cgroups).directories, [`${own}/stoker-a`])
      assert.strictEqual(kernel.read(`${own}/stoker-worker/cgroup.procs`).trim(), `${process.pid}`)
      assert.deepStrictEqual(yield* (yield* Cgroups).instances, ["a"])
    }).pipe(Effect.provide(on(kernel)))
  })

  it.effect("stays where it is when it was started in its leaf", () => {
    const kernel = FakeKernel.make("v2", "/unit/stoker-worker")
    return Effect.gen(function*() {
      assert.deepStrictEqual((yield* Cgroups).directories, ["/sys/fs/cgroup/unit/stoker-a"])
    }).pipe(Effect.provide(on(kernel)))
  })

  it.effect("goes to the root, as root may, when others share its cgroup", () => {
    const kernel = FakeKernel.make("v2", "/session")
    kernel.write("/sys/fs/cgroup/session/cgroup.procs", "100001")
    return Effect.gen(function*() {
      assert.deepStrictEqual((yield* Cgroups).directories, ["/sys/fs/cgroup/stoker-a"])
      assert.isFalse(kernel.exists("/sys/fs/cgroup/session/stoker-worker"))
    }).pipe(Effect.provide(on(kernel)))
  })

  it.effect("names what it lacks when no place will do", () => {
    const kernel = FakeKernel.make("v2", "/session")
    kernel.write("/sys/fs/cgroup/session/cgroup.procs", "100001")
    kernel.failNext("write", "/sys/fs/cgroup/cgroup.subtree_control", "EACCES")
    const shared = Effect.flip(Effect.scoped(Effect.provide(Effect.asVoid(Cgroups), on(kernel))))
    const bare = FakeKernel.make("v2")
    bare.set("/sys/fs/cgroup/cgroup.controllers", "hugetlb")
    return Effect.gen(function*() {
      const error = yield* shared
      assert.include(error.message, "100001 share the worker's cgroup")
      assert.include(error.message, "Delegate=yes")
      const missing = yield* Effect.flip(Effect.scoped(Effect.provide(Effect.asVoid(Cgroups), on(bare))))
      assert.deepStrictEqual(missing.missing, ["memory", "pids", "cpu"])
    })
  })
})

describe("Cgroups", () => {
  it.effect("makes a leaf once, and never one outside its instance", () => {
    const kernel = FakeKernel.make("v2")
    return Effect.gen(function*() {
      const cgroups = yield* Cgroups
      yield* cgroups.make("job")
      assert.strictEqual((yield* Effect.flip(cgroups.make("job"))).code, "EEXIST")
      for (const name of ["", ".", "..", "../x", "a/b", "a\nb", ".hidden", "-x", "x".repeat(101)]) {
        yield* Effect.flip(cgroups.make(name))
        yield* Effect.flip(cgroups.open(name).remove)
        yield* Effect.flip(cgroups.forInstance(name).leaves)
        yield* Effect.flip(cgroups.forInstance(name).open("job").kill)
      }
      yield* Effect.flip(cgroups.forInstance("worker").remove)
    }).pipe(Effect.provide(on(kernel)))
  })

  it.effect("removes what is there, and again, and a group that a make left half-way", () => {
    const kernel = FakeKernel.make("v1")
    return Effect.gen(function*() {
      const cgroups = yield* Cgroups
      kernel.failNext("mkdir", "/cpu/stoker-a/job", "ENOSPC")
      assert.strictEqual((yield* Effect.flip(cgroups.make("job"))).code, "ENOSPC")
      assert.isTrue(kernel.exists(v1("memory")))
      yield* cgroups.open("job").kill
      yield* cgroups.open("job").remove
      yield* cgroups.open("job").remove
      assert.isFalse(kernel.exists(v1("memory")))
      assert.deepStrictEqual(yield* cgroups.open("job").pids, [])
    }).pipe(Effect.provide(on(kernel)))
  })

  it.effect("waits for the last exit before it gives up a removal", () => {
    const kernel = FakeKernel.make("v1")
    return Effect.gen(function*() {
      const group = yield* (yield* Cgroups).make("job")
      kernel.failNext("rmdir", v1("pids"), "EBUSY", 3)
      const removal = yield* Effect.forkChild(group.remove, { startImmediately: true })
      yield* TestClock.adjust("100 millis")
      yield* Fiber.join(removal)

      yield* (yield* Cgroups).make("job")
      kernel.write(`${v1("memory")}/cgroup.procs`, "100001")
      const busy = yield* Effect.forkChild(Effect.flip(group.remove), { startImmediately: true })
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Fiber.join(busy)).code, "EBUSY")
      assert.isFalse(kernel.exists(v1("freezer"))) // the others went all the same
    }).pipe(Effect.provide(on(kernel)))
  })

  it.effect("names the processes that do not die within a second", () => {
    const kernel = FakeKernel.make("v1")
    const stuck = { ...kernel, kill: () => undefined }
    return Effect.gen(function*() {
      const group = yield* (yield* Cgroups).make("job")
      kernel.write(`${v1("memory")}/cgroup.procs`, "100001")
      const killing = yield* Effect.forkChild(Effect.flip(group.kill), { startImmediately: true })
      yield* TestClock.adjust("1100 millis")
      assert.include((yield* Fiber.join(killing)).message, "processes 100001 are still there")
      const waiting = yield* Effect.forkChild(group.awaitEmpty("1 minute"), { startImmediately: true })
      yield* TestClock.adjust("59 seconds")
      kernel.kill(100_001)
      yield* TestClock.adjust("1 second")
      assert.isTrue(yield* Fiber.join(waiting))
    }).pipe(Effect.provide(on(stuck)))
  })

  it.effect("leaves no directory of its own behind, but what still has leaves", () => {
    const kernel = FakeKernel.make("v1")
    return Effect.gen(function*() {
      yield* Effect.scoped(Effect.provide(
        Effect.flatMap(Cgroups, (cgroups) => Effect.flatMap(cgroups.make("job"), (group) => group.remove)),
        on(kernel, "clean")
      ))
      assert.isFalse(kernel.exists("/sys/fs/cgroup/pids/stoker-clean"))
    })
  })

  it.effect("lets the janitor see and remove what another instance left, wherever it was recorded", () => {
    const kernel = FakeKernel.make("v1")
    kernel.mkdir("/sys/fs/cgroup/memory/elsewhere")
    for (const path of ["memory/elsewhere/stoker-dead", "pids/stoker-dead", "cpu/stoker-dead"]) {
      kernel.mkdir(`/sys/fs/cgroup/${path}`)
      kernel.mkdir(`/sys/fs/cgroup/${path}/job`)
    }
    kernel.write("/sys/fs/cgroup/memory/elsewhere/stoker-dead/job/cgroup.procs", "100001")
    return Effect.gen(function*() {
      const cgroups = yield* Cgroups
      assert.deepStrictEqual(yield* cgroups.instances, ["a", "dead"])
      const dead = cgroups.forInstance("dead", [
        "/sys/fs/cgroup/memory/elsewhere/stoker-dead",
        "/sys/fs/cgroup/pids/../../../etc/stoker-dead",
        "/sys/fs/cgroup/cpu/stoker-other"
      ])
      assert.deepStrictEqual(dead.directories.slice(0, 3), [
        "/sys/fs/cgroup/memory/elsewhere/stoker-dead",
        "/sys/fs/cgroup/pids/stoker-dead",
        "/sys/fs/cgroup/cpu/stoker-dead"
      ])
      assert.deepStrictEqual(yield* dead.leaves, ["job"])
      yield* dead.open("job").kill
      yield* dead.open("job").remove
      yield* dead.remove
      assert.deepStrictEqual(yield* cgroups.instances, ["a"])
    }).pipe(Effect.provide(on(kernel)))
  })

  it.effect("tells of a v2 hierarchy beside v1 only while it offers a controller", () => {
    const kernel = FakeKernel.make("v1")
    kernel.set(
      "/proc/self/mountinfo",
      `${kernel.read("/proc/self/mountinfo")}9 8 0:9 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n`
    )
    const seen = Effect.scoped(Effect.provide(Effect.map(Cgroups, (cgroups) => cgroups.hybridMount), on(kernel)))
    return Effect.gen(function*() {
      kernel.set("/sys/fs/cgroup/unified/cgroup.controllers", "hugetlb\n")
      assert.deepStrictEqual(yield* seen, Option.some("/sys/fs/cgroup/unified"))
      kernel.set("/sys/fs/cgroup/unified/cgroup.controllers", "\n")
      assert.deepStrictEqual(yield* seen, Option.none())
    })
  })

  it.effect("has a layer for tests that counts what lives and takes orders", () =>
    Effect.gen(function*() {
      const cgroups = yield* Cgroups
      const test = yield* CgroupsTest
      const group = yield* cgroups.make("job")
      yield* group.limit({ memoryBytes: 64 })
      assert.strictEqual(yield* test.file("job", "memory.max"), "64")
      yield* test.enter("job", 100_001)
      yield* test.setFile("job", "memory.events", "oom_kill 1\n")
      assert.strictEqual((yield* group.usage).oomKills, 1)
      assert.deepStrictEqual(yield* group.pids, [100_001])
      yield* group.kill
      assert.deepStrictEqual(yield* test.live, ["job"])
      yield* group.remove
      assert.deepStrictEqual(yield* test.live, [])
      yield* test.failNext("mkdir", "/next", "ENOSPC")
      assert.strictEqual((yield* Effect.flip(cgroups.make("next"))).code, "ENOSPC")
    }).pipe(Effect.provide(layerTest)))
})
