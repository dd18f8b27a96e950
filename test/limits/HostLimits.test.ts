import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Cgroups } from "../../src/layers/cgroup/Cgroup.ts"
import { layerTest } from "../../src/layers/cgroup/CgroupsTest.ts"
import * as Devices from "../../src/layers/cgroup/Devices.ts"
import * as OomLog from "../../src/layers/host/OomLog.ts"
import * as HostLimits from "../../src/layers/sandbox/HostLimits.ts"
import { type Limits, type LimitsRequest, needsOf, resolve, standardDefaults } from "../../src/schemas/Limits.ts"
import { standardClass } from "../../src/schemas/WorkerConfig.ts"

const sandboxClass = standardClass("a", "oci")
const frame = { ownPids: 2, sandboxClass }
const cgroupOf = (limits: Partial<Limits>) => HostLimits.cgroupLimits({ ...standardDefaults, ...limits }, frame)

describe("limits of a class and of a job", () => {
  const ceiling: Limits = { ...standardDefaults, ioWriteBytesPerSec: 1000, memoryHighBytes: 2 ** 27 }
  const refusal = (request: LimitsRequest) =>
    Effect.map(Effect.flip(resolve(ceiling, standardDefaults, request)), String)

  it.effect("a rate that nobody asked for is the class's, not none", () =>
    Effect.gen(function*() {
      assert.strictEqual((yield* resolve(ceiling, standardDefaults, {})).ioWriteBytesPerSec, 1000)
      assert.strictEqual((yield* resolve(ceiling, standardDefaults, { ioWriteBytesPerSec: 7 })).ioWriteBytesPerSec, 7)
      assert.include(yield* refusal({ ioWriteBytesPerSec: 1001 }), "ioWriteBytesPerSec 1001 is above the class's 1000")
    }))

  it.effect("more than a fair share, or swap, is the class's to give", () =>
    Effect.gen(function*() {
      assert.include(yield* refusal({ cpuWeight: 101 }), "cpuWeight 101 is above the class's 100")
      assert.include(yield* refusal({ swapBytes: 1 }), "swapBytes 1 is above the class's 0")
      assert.include(yield* refusal({ memoryHighBytes: 2 ** 28 }), "memoryHighBytes")
      assert.strictEqual((yield* resolve(ceiling, standardDefaults, { cpuWeight: 10 })).cpuWeight, 10)
    }))

  it("asks a driver for what is not usual only", () => {
    assert.deepStrictEqual([
      ...needsOf({ ...standardDefaults, cpuWeight: 100, ioWeight: 100, swapBytes: 0, oomGroup: false })
    ], [])
    assert.deepStrictEqual([...needsOf({ ...standardDefaults, ioReadsPerSec: 3, oomGroup: true })], [
      ["oom-group", "oomGroup"],
      ["io-max", "ioReadsPerSec"]
    ])
  })
})

describe("limits of a phase in its cgroup", () => {
  it("nothing is written twice, and what the next phase leaves out is lifted", () => {
    const first = cgroupOf({ memoryHighBytes: 2 ** 25, cpuWeight: 10, oomGroup: true, ioWeight: 7 })
    assert.isUndefined(HostLimits.changes(first, first))
    assert.deepStrictEqual(HostLimits.changes(first, cgroupOf({ pids: 9 })), {
      pids: 11,
      cpuWeight: 100,
      memoryHighBytes: Number.POSITIVE_INFINITY,
      oomGroup: false,
      ioWeight: 100
    })
    assert.deepStrictEqual(HostLimits.changes({ ...first, ioMax: { devices: ["8:0"], readsPerSec: 1 } }, first), {
      ioMax: { devices: ["8:0"] }
    })
  })

  it.effect("a device that is none, or has no weights, is named", () =>
    Effect.gen(function*() {
      const accepts = HostLimits.accepts(yield* Cgroups)
      const limits: Limits = { ...standardDefaults, ioReadsPerSec: 1 }
      const refused = (path: string) =>
        Effect.map(Effect.flip(accepts({ ...sandboxClass, ioDevices: [path] }, limits)), ({ message }) => message)
      assert.include(yield* refused("/dev/null"), "ioReadsPerSec cannot be held: /dev/null: it is no block device")
      assert.include(yield* refused("/dev/absent"), "/dev/absent: ENOENT")
      yield* accepts({ ...sandboxClass, ioDevices: ["/dev/absent"] }, standardDefaults)
    }).pipe(Effect.provide(layerTest)))
})

describe("block devices", () => {
  it("disks are hardware; weights need a scheduler for them", () => {
    const sys = mkdtempSync(join(tmpdir(), "stoker-sys-"))
    try {
      for (
        const [name, number, scheduler] of [["loop0", "7:0", "[none]"], ["vda", "254:0", "none [bfq]"], [
          "vdb",
          "254:16",
          "[none]"
        ]] as const
      ) {
        mkdirSync(join(sys, "block", name, "queue"), { recursive: true })
        writeFileSync(join(sys, "block", name, "dev"), `${number}\n`)
        writeFileSync(join(sys, "block", name, "queue/scheduler"), scheduler)
        if (name !== "loop0") symlinkSync("..", join(sys, "block", name, "device"))
      }
      const [vda, vdb, ...others] = Devices.disks(sys)
      assert.deepStrictEqual([vda, vdb, ...others], [{ name: "vda", number: "254:0" }, {
        name: "vdb",
        number: "254:16"
      }])
      assert.isTrue(vda !== undefined && Devices.isWeighed(vda, sys))
      assert.isFalse(vdb === undefined || Devices.isWeighed(vdb, sys))
      mkdirSync(join(sys, "fs/cgroup"), { recursive: true })
      writeFileSync(join(sys, "fs/cgroup/io.cost.qos"), "254:16 enable=1 ctrl=auto\n")
      assert.isTrue(vdb !== undefined && Devices.isWeighed(vdb, sys))
      assert.deepStrictEqual(Devices.disks(join(sys, "absent")), [])
    } finally {
      rmSync(sys, { recursive: true, force: true })
    }
  })
})

describe("the kernel's log of those killed for want of memory", () => {
  const record = (group: string, task: string) =>
    `6,1,2,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=${group},task_memcg=${group},task=${task},pid=77,uid=1000`

  it("names the first one in a group, and nobody of another whose name begins alike", () => {
    const records = [
      "6,0,1,-;Memory cgroup out of memory",
      record("/stoker-a/ab", "other"),
      record("/stoker-a/abc", "python3"),
      record("/stoker-a/abc", "late")
    ]
    assert.strictEqual(OomLog.victimIn(records, "abc"), "python3")
    assert.isUndefined(OomLog.victimIn(records, "a"))
  })
})
