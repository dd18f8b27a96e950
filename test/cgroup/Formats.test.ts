import { assert, describe, it } from "@effect/vitest"
import * as Formats from "../../src/layers/cgroup/Formats.ts"
import * as Mounts from "../../src/layers/cgroup/Mounts.ts"

describe("Formats", () => {
  it("reads keyed files and leaves out what is no number", () => {
    assert.deepStrictEqual(
      [...Formats.flatKeyed("usage_usec 67139585\nuser_usec 37942236\nodd\nmax_usage max\n")],
      [["usage_usec", 67139585], ["user_usec", 37942236]]
    )
    assert.strictEqual(Formats.flatKeyed("max 3\noom 2\noom_kill 1\n").get("oom_kill"), 1)
    assert.strictEqual(Formats.flatKeyed(undefined).size, 0)
  })

  it("tells a missing number from zero", () => {
    assert.strictEqual(Formats.number("0\n"), 0)
    assert.strictEqual(Formats.number("max\n"), undefined)
    assert.strictEqual(Formats.number(""), undefined)
    assert.strictEqual(Formats.number(undefined), undefined)
  })

  it("never gives pid 0, which would signal ourselves", () => {
    assert.deepStrictEqual(Formats.pids("12\n0\n345\n"), [12, 345])
    assert.deepStrictEqual(Formats.pids(""), [])
  })

  it("adds I/O over devices, and nothing transferred is 0 while no file is absent", () => {
    assert.deepStrictEqual(
      Formats.ioStat("254:0 rbytes=10 wbytes=200 rios=1 wios=2 dbytes=9\n7:0 rbytes=5 wbytes=0 rios=1 wios=0\n"),
      { read: 15, write: 200 }
    )
    assert.deepStrictEqual(
      Formats.ioServiceBytes("254:0 Read 10\n254:0 Write 20\n254:0 Total 30\n7:0 Read 1\nTotal 31\n"),
      { read: 11, write: 20 }
    )
    assert.deepStrictEqual(Formats.ioStat(""), { read: 0, write: 0 })
    assert.deepStrictEqual(Formats.ioStat(undefined), { read: undefined, write: undefined })
  })

  it("writes limits as the kernel wants them", () => {
    assert.strictEqual(Formats.cpuQuota(0.5, "max"), "50000")
    assert.strictEqual(Formats.cpuQuota(0.001, "max"), "1000")
    assert.strictEqual(Formats.cpuQuota(Infinity, "-1"), "-1")
    assert.strictEqual(Formats.limit(1.9, "max"), "1")
    assert.strictEqual(Formats.limit(Infinity, "max"), "max")
    assert.deepStrictEqual([1, 100, 10_000, 100_000].map(Formats.cpuShares), [10, 1024, 102_400, 262_144])
  })

  it("splits CPU time in the proportion of ticks, and not at all before the first tick", () => {
    assert.deepStrictEqual(Formats.splitCpu(1000, 3, 1), { user: 750, system: 250 })
    assert.strictEqual(Formats.splitCpu(1000, 0, 0), undefined)
  })
})

describe("Mounts", () => {
  const mountinfo = [
    "24 30 0:22 / /proc rw,nosuid - proc proc rw",
    "33 32 0:28 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct",
    "34 32 0:29 /docker/ab /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory",
    "35 32 0:30 / /mnt/with\\040space rw - cgroup2 cgroup2 rw,nsdelegate"
  ].join("\n")

  it("finds hierarchies, together mounted controllers and odd mount points", () => {
    assert.deepStrictEqual(Mounts.parseMounts(mountinfo), [
      { version: "v1", mountPoint: "/sys/fs/cgroup/cpu,cpuacct", root: "/", controllers: ["rw", "cpu", "cpuacct"] },
      { version: "v1", mountPoint: "/sys/fs/cgroup/memory", root: "/docker/ab", controllers: ["rw", "memory"] },
      { version: "v2", mountPoint: "/mnt/with space", root: "/", controllers: [] }
    ])
  })

  it("finds this process on every hierarchy", () => {
    const own = Mounts.parseOwn("4:memory:/docker/ab/c\n1:cpu,cpuacct:/\n9:name=systemd:/x\n0::/system.slice/a:b\n")
    assert.strictEqual(own.get("memory"), "/docker/ab/c")
    assert.strictEqual(own.get("cpuacct"), "/")
    assert.strictEqual(own.get(""), "/system.slice/a:b")
  })

  it("gives the directory of a cgroup only where the mount shows it", () => {
    const [cpu, memory] = Mounts.parseMounts(mountinfo)
    if (cpu === undefined || memory === undefined) return assert.fail("mounts")
    assert.strictEqual(Mounts.directoryOf(cpu, "/"), "/sys/fs/cgroup/cpu,cpuacct")
    assert.strictEqual(Mounts.directoryOf(cpu, "/a"), "/sys/fs/cgroup/cpu,cpuacct/a")
    assert.strictEqual(Mounts.directoryOf(memory, "/docker/ab"), "/sys/fs/cgroup/memory")
    assert.strictEqual(Mounts.directoryOf(memory, "/docker/ab/c"), "/sys/fs/cgroup/memory/c")
    assert.strictEqual(Mounts.directoryOf(memory, "/docker/abc"), undefined)
    assert.strictEqual(Mounts.directoryOf(cpu, "/../outside"), undefined)
  })
})
