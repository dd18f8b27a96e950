/** The part of v2 that needs no controller, for real: also on a host whose controllers are on v1. */
import { afterAll, assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Fs from "node:fs"
import { Cgroups } from "../../src/layers/cgroup/Cgroup.ts"
import * as CgroupsHost from "../../src/layers/cgroup/CgroupsHost.ts"
import * as Mounts from "../../src/layers/cgroup/Mounts.ts"
import * as Processes from "./Processes.ts"

const instance = `test-cgroup-core-${process.pid}`
const core = CgroupsHost.layer({ instance, version: "v2", controllers: [] })
const isMounted = Mounts.parseMounts(Fs.readFileSync("/proc/self/mountinfo", "utf8"))
  .some(({ version }) => version === "v2")

const leaf = (name: string) =>
  Effect.gen(function*() {
    const cgroups = yield* Cgroups
    const undo = cgroups.open(name)
    yield* Effect.addFinalizer(() => Effect.orDie(Effect.andThen(undo.kill, undo.remove)))
    return yield* cgroups.make(name)
  })

const onMount = () => {
  afterAll(() => {
    assert.deepStrictEqual(Processes.directoriesNamed(`stoker-${instance}`), [])
  })

  it.live("kills with one write, sees the group populated and empty, tells CPU time and nothing else", () =>
    Effect.gen(function*() {
      const group = yield* leaf("kill")
      assert.isTrue(yield* group.isEmpty)
      const program = yield* Processes.start(
        group,
        "trap '' TERM; for i in $(seq 9); do sleep 60 & done; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo on; wait"
      )
      yield* program.said("on")
      assert.isFalse(yield* group.isEmpty)
      assert.strictEqual((yield* group.pids).length, 10)
      yield* group.kill
      assert.strictEqual((yield* program.ended).signal, "SIGKILL")
      const usage = yield* group.usage
      assert.isAbove(usage.cpuMicros, 0)
      assert.isDefined(usage.cpuUserMicros)
      assert.isUndefined(usage.memoryPeakBytes)
      assert.isUndefined(usage.oomKills)
      assert.isUndefined((yield* group.now).pids)
      assert.isFalse(yield* group.resetPeak)
      yield* group.remove
    }).pipe(Effect.provide(core)))

  it.live("refuses a limit that no controller can hold", () =>
    Effect.gen(function*() {
      const group = yield* leaf("limit")
      for (const limits of [{ memoryBytes: 1e9 }, { pids: 5 }, { cpus: 1 }, { cpuWeight: 50 }]) {
        const error = yield* Effect.flip(group.limit(limits))
        assert.strictEqual(error.code, "ENOENT")
        assert.include(error.message, "its controller is not enabled here")
      }
    }).pipe(Effect.provide(core)))

  it.live("stops every process while frozen, and kills what is frozen", () =>
    Effect.gen(function*() {
      const group = yield* leaf("freeze")
      const program = yield* Processes.start(group, "echo on; while :; do :; done")
      yield* program.said("on")
      yield* group.freeze
      const { cpuMicros } = yield* group.usage
      yield* Effect.sleep("30 millis") // the measured period: nothing may run in it
      assert.strictEqual((yield* group.usage).cpuMicros, cpuMicros)
      yield* group.thaw
      yield* Effect.repeat(group.usage, { until: (usage) => usage.cpuMicros > cpuMicros })
      yield* group.freeze
      yield* group.kill
      assert.isTrue(yield* group.isEmpty)
    }).pipe(Effect.provide(core)))

  it.live("says which controllers this hierarchy lacks, if it is not the one that owns them", () =>
    Effect.gen(function*() {
      const owner = yield* Effect.provide(
        Effect.map(Cgroups, ({ version }) => version),
        CgroupsHost.layer({ instance })
      )
      const lacking = Effect.provide(Effect.asVoid(Cgroups), CgroupsHost.layer({ instance, version: "v2" }))
      if (owner === "v2") return yield* lacking
      assert.deepStrictEqual((yield* Effect.flip(lacking)).missing, ["memory", "pids", "cpu"])
    }))

  it.live("lets a janitor find and end what a dead instance left", () =>
    Effect.gen(function*() {
      const cgroups = yield* Cgroups
      const dead = `${instance}-dead`
      const left = cgroups.forInstance(dead)
      yield* Processes.makeDirectories(left.open("job").procsFiles.map((file) => file.replace("/job/", "/")))
      yield* Processes.makeDirectories(left.open("job").procsFiles)
      const program = yield* Processes.start(left.open("job"), "echo on; sleep 60")
      yield* program.said("on")
      assert.include(yield* cgroups.instances, dead)
      assert.deepStrictEqual(yield* left.leaves, ["job"])
      assert.strictEqual((yield* Effect.flip(left.remove)).code, "ENOTEMPTY")
      yield* left.open("job").kill
      yield* left.open("job").remove
      yield* left.remove
      assert.notInclude(yield* cgroups.instances, dead)
    }).pipe(Effect.provide(core)))
}

// A host without v2, or a run in a mount namespace where it was unmounted for crun, has another promise to keep.
describe("Cgroups v2 without controllers on this host", () => {
  if (isMounted) return onMount()
  it.effect("is not there, and is said not to be", () =>
    Effect.gen(function*() {
      const error = yield* Effect.flip(Effect.provide(Effect.asVoid(Cgroups), core))
      assert.include(error.message, "no cgroup filesystem is mounted")
    }))
})
