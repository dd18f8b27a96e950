/** The cgroups of this machine, whichever version owns its controllers. Needs root or a delegated cgroup. */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Cgroups } from "../../src/layers/cgroup/Cgroup.ts"
import * as CgroupsHost from "../../src/layers/cgroup/CgroupsHost.ts"
import { slowness } from "../support/Slowness.ts"
import * as Processes from "./Processes.ts"

const instance = `test-cgroup-host-${process.pid}`
const mebi = 1024 * 1024

/** A leaf that is killed and removed with the scope, whatever the test did. */
const leaf = (name: string) =>
  Effect.gen(function*() {
    const cgroups = yield* Cgroups
    const undo = cgroups.open(name)
    yield* Effect.addFinalizer(() => Effect.orDie(Effect.andThen(undo.kill, undo.remove)))
    return yield* cgroups.make(name)
  })

describe("Cgroups on this host", () => {
  let before: ReadonlyArray<string> = []
  beforeAll(() => {
    before = Processes.directoriesNamed(`stoker-${instance}`)
  })
  afterAll(() => {
    assert.deepStrictEqual(Processes.directoriesNamed(`stoker-${instance}`), before)
  })

  it.live("counts the peak memory of a known allocation within 10 %", () =>
    Effect.gen(function*() {
      const group = yield* leaf("peak")
      yield* group.limit({ memoryBytes: 256 * mebi, pids: 16 })
      const program = yield* Processes.start(group, "exec dd if=/dev/zero of=/dev/null bs=64M count=1")
      assert.strictEqual((yield* program.ended).code, 0)
      const usage = yield* group.usage
      assert.isAtLeast(usage.memoryPeakBytes ?? 0, 64 * mebi)
      assert.isAtMost(usage.memoryPeakBytes ?? 0, 64 * mebi * 1.1)
      assert.isAbove(usage.cpuMicros, 0)
      assert.strictEqual(usage.oomKills, 0)
      if (yield* group.resetPeak) assert.isBelow((yield* group.usage).memoryPeakBytes ?? 0, 32 * mebi)
    }).pipe(Effect.provide(CgroupsHost.layer({ instance }))))

  it.live("holds memory from the first instruction, and the kernel's counter tells an OOM", () =>
    Effect.gen(function*() {
      const group = yield* leaf("oom")
      yield* group.limit({ memoryBytes: 32 * mebi, pids: 16 })
      const program = yield* Processes.start(group, "dd if=/dev/zero of=/dev/null bs=256M count=1; echo child $?")
      const { code, output } = yield* program.ended
      assert.strictEqual(code, 0) // the parent survives: an exit code proves nothing
      assert.include(output, "child 137")
      const usage = yield* group.usage
      assert.strictEqual(usage.oomKills, 1)
      assert.isAtMost(usage.memoryPeakBytes ?? Infinity, 32 * mebi)
    }).pipe(Effect.provide(CgroupsHost.layer({ instance }))))

  it.live("holds a loop of forks at its limit and counts what it refused", () =>
    Effect.gen(function*() {
      const group = yield* leaf("forks")
      yield* group.limit({ memoryBytes: 64 * mebi, pids: 8 })
      const program = yield* Processes.start(group, "for i in $(seq 40); do sleep 60 > /dev/null 2>&1 & done; wait")
      const { code, output } = yield* program.ended
      assert.strictEqual(code, 2)
      assert.include(output, "Cannot fork")
      const usage = yield* group.usage
      assert.isAbove(usage.pidsMaxHits ?? 0, 0)
      assert.isAtMost((yield* group.now).pids ?? Infinity, 8)
      if (usage.pidsPeak !== undefined) assert.strictEqual(usage.pidsPeak, 8)
      yield* group.kill
      assert.isTrue(yield* group.isEmpty)
    }).pipe(Effect.provide(CgroupsHost.layer({ instance }))))

  it.live("throttles to a share of a core", () =>
    Effect.gen(function*() {
      const group = yield* leaf("cpu")
      yield* group.limit({ cpus: 0.2, cpuWeight: 50 })
      // Some hundred milliseconds of a core, on any machine.
      const turns = Math.round(150_000 / slowness)
      const program = yield* Processes.start(group, `i=0; while [ $i -lt ${turns} ]; do i=$((i+1)); done`)
      assert.strictEqual((yield* program.ended).code, 0)
      const usage = yield* group.usage
      assert.isAbove(usage.throttledMicros ?? 0, 0)
      assert.isAbove(usage.cpuMicros, 20_000)
    }).pipe(Effect.provide(CgroupsHost.layer({ instance }))))

  it.live("kills fifty processes that ignore SIGTERM, and removes their group", () =>
    Effect.gen(function*() {
      const group = yield* leaf("stubborn")
      const program = yield* Processes.start(
        group,
        "trap '' TERM; for i in $(seq 49); do sleep 60 & done; echo ready; wait"
      )
      yield* program.said("ready")
      const pids = yield* group.pids
      assert.strictEqual(pids.length, 50)
      for (const pid of pids) process.kill(pid, "SIGTERM")
      assert.isFalse(yield* group.awaitEmpty("50 millis"))
      yield* group.kill
      assert.isTrue(yield* group.isEmpty)
      assert.deepStrictEqual(yield* group.pids, [])
      yield* group.remove
      yield* group.remove
      assert.deepStrictEqual(yield* (yield* Cgroups).forInstance(instance).leaves, [])
    }).pipe(Effect.provide(CgroupsHost.layer({ instance }))))

  it.live("catches a fork loop that outruns a list of pids", () =>
    Effect.gen(function*() {
      const group = yield* leaf("bomb")
      yield* group.limit({ pids: 64, memoryBytes: 128 * mebi })
      const program = yield* Processes.start(group, "f() { echo on; f & f & wait; }; f 2>/dev/null")
      yield* program.said("on")
      yield* group.kill
      assert.isTrue(yield* group.isEmpty)
      yield* group.remove
    }).pipe(Effect.provide(CgroupsHost.layer({ instance }))))

  it.live("stops every process while frozen, goes on after, and kills what is frozen", () =>
    Effect.gen(function*() {
      const group = yield* leaf("frozen")
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
    }).pipe(Effect.provide(CgroupsHost.layer({ instance }))))

  it.live("changes limits between phases, up and down, but not below what is held", () =>
    Effect.gen(function*() {
      const group = yield* leaf("phases")
      for (const megas of [64, 16, 128]) {
        yield* group.limit({ memoryBytes: megas * mebi, pids: megas, cpus: megas / 64 })
      }
      const program = yield* Processes.start(
        group,
        "exec perl -e '$x = \"a\"; $x x= 32 << 20; $| = 1; print \"held\\n\"; sleep 60'"
      )
      yield* program.said("held")
      const error = yield* Effect.flip(group.limit({ memoryBytes: 8 * mebi }))
      assert.strictEqual(error.code, "EBUSY")
      assert.include(error.message, "the new limit is lower")
      assert.isFalse(yield* group.isEmpty)
      assert.strictEqual((yield* group.usage).oomKills, 0)
      yield* group.limit({ memoryBytes: 512 * mebi })
    }).pipe(Effect.provide(CgroupsHost.layer({ instance }))))

  it.live("empties groups below a leaf and removes them with it", () =>
    Effect.gen(function*() {
      const cgroups = yield* Cgroups
      const group = yield* leaf("nested")
      // As a container manager inside would make one.
      const inner = { ...group, procsFiles: group.procsFiles.map((file) => file.replace(/cgroup\.procs$/, "in/$&")) }
      yield* Processes.makeDirectories(inner.procsFiles)
      const program = yield* Processes.start(inner, "echo on; sleep 60")
      yield* program.said("on")
      assert.isAbove((yield* group.pids).length, 0)
      assert.isFalse(yield* group.isEmpty)
      yield* group.kill
      yield* group.remove
      assert.deepStrictEqual(yield* cgroups.forInstance(instance).leaves, [])
    }).pipe(Effect.provide(CgroupsHost.layer({ instance }))))
})
