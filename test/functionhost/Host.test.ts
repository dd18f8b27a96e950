/** Handlers in real sandboxes: in a host that waited for them, and in one that is started for them. */
import { afterAll, assert, describe, layer } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import * as Pools from "../../src/actors/Pools.ts"
import { standardPool } from "../../src/schemas/PoolConfig.ts"
import type { SandboxClass } from "../../src/schemas/SandboxClass.ts"
import { standardClass } from "../../src/schemas/WorkerConfig.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import { patience } from "../support/Slowness.ts"

const file = join(import.meta.dirname, "handlers.ts")
const MiB = 1024 * 1024

const classOf = (driver: "oci" | "process", functions: boolean): SandboxClass => {
  const usual = standardClass(driver, driver)
  const wallMs = Jobs.wallOf(usual.defaults.wallMs)
  return { ...usual, functions, defaults: { ...usual.defaults, wallMs, cpuMs: wallMs, outputBytes: 16 * MiB } }
}

/** Nothing of a worker is left when its layer has closed. */
const leavesNothing = (state: string) =>
  afterAll(() => {
    assert.deepStrictEqual(Jobs.held(state), {
      processes: 0,
      cgroups: 0,
      mounts: 0,
      ledger: [],
      crun: 0,
      instances: 0
    })
    Jobs.remove(state)
  })

for (const driver of ["oci", "process"] as const) {
  for (const functions of [true, false]) {
    const sandboxClass = classOf(driver, functions)
    const state = Jobs.stateDirectory()
    const call = (name: string, args: unknown = {}, wanted: Partial<Jobs.Wanted> = {}) =>
      Jobs.runIn(sandboxClass, { function: name, args, ...wanted })
    const how = functions ? "a host that waits" : "a host that is started"

    describe(`${driver}, ${how}`, () => {
      leavesNothing(state)
      layer(Jobs.layerOf(sandboxClass, state, [file]), { excludeTestServices: true, timeout: "2 minutes" })(
        "in one executor",
        (it) => {
          it.effect("prints lines as they are said, and the result", () =>
            Effect.gen(function*() {
              const { outcome, stderr, stdout } = yield* call("greet", { who: "you", times: "2" })
              assert.deepInclude(outcome, { _tag: "Exited", code: 0 })
              const result = "[RESULT] {\"id\":\"a\",\"owner\":\"tester\",\"attempt\":1,\"seen\":3}"
              assert.strictEqual(stdout.toString(), `[GREET] hello you\n[GREET] hello you\n${result}\n`)
              assert.strictEqual(stderr.toString(), "")
              const nothing = yield* call("idle")
              assert.deepInclude(nothing.outcome, { _tag: "Exited", code: 0 })
              assert.strictEqual(nothing.stdout.length + nothing.stderr.length, 0)
            }))

          it.effect("what it imports while it runs is nothing to tell", () =>
            Effect.gen(function*() {
              const { outcome, stderr, stdout } = yield* call("late")
              assert.deepInclude(outcome, { _tag: "Exited", code: 0 })
              assert.deepStrictEqual([stdout.toString(), stderr.toString()], ["[RESULT] function\n", ""])
            }))

          it.effect("a failure is told in its own words, a defect with its place", () =>
            Effect.gen(function*() {
              const failure = yield* call("fails")
              assert.deepInclude(failure.outcome, { _tag: "Exited", code: 1 })
              assert.strictEqual(failure.stderr.toString(), "fails: {\"reason\":\"nobody is at home\"}\n")
              const defect = yield* call("dies")
              assert.deepInclude(defect.outcome, { _tag: "Exited", code: 1 })
              assert.match(defect.stderr.toString(), /^dies: SyntaxError: .*\n +at JSON\.parse .*\n/)
              assert.strictEqual(defect.stdout.length, 0)
            }))

          it.effect("a handler that waits for what cannot come is no success", () =>
            Effect.gen(function*() {
              const { outcome, stderr } = yield* call("forgets")
              assert.deepInclude(outcome, { _tag: "Exited", code: 1 })
              assert.match(stderr.toString(), /^forgets: .*never comes\n$/)
            }))

          it.effect("5 MB of result arrive whole, 3 MB of arguments too", () =>
            Effect.gen(function*() {
              const { outcome, stdout } = yield* call("prints", { bytes: 5_000_000 })
              assert.deepInclude(outcome, { _tag: "Exited", code: 0 })
              assert.strictEqual(stdout.length, 5_000_010)
              assert.strictEqual(stdout.toString(), `[RESULT] ${"x".repeat(5_000_000)}\n`)
              const measured = yield* call("measures", { text: "ä".repeat(1_500_000) })
              assert.strictEqual(measured.stdout.toString(), "[RESULT] 1500000\n")
            }))

          it.effect("one that never yields ends at its wall limit, and at its CPU limit", () =>
            Effect.gen(function*() {
              const wall = yield* call("spins", {}, { limits: { wallMs: 1000 } })
              assert.deepInclude(wall.outcome, { _tag: "TimedOut", limit: "wall", limitMs: 1000 })
              const cpu = yield* call("spins", {}, { limits: { cpuMs: 700 } })
              assert.deepInclude(cpu.outcome, { _tag: "TimedOut", limit: "cpu", limitMs: 700 })
            }))

          it.effect("one that takes memory without end is told as out of memory", () =>
            Effect.gen(function*() {
              const { outcome } = yield* call("grows")
              assert.strictEqual(outcome._tag, "OutOfMemory")
              const less = yield* call("grows", {}, { limits: { memoryBytes: 96 * MiB } })
              assert.deepInclude(less.outcome, { _tag: "OutOfMemory", limitBytes: 96 * MiB })
            }))

          it.effect("more than the class gives without being asked is given to a host that is started for it", () =>
            Effect.gen(function*() {
              Jobs.held(state)
              const { outcome, usage } = yield* call("grows", {}, { limits: { memoryBytes: 384 * MiB } })
              assert.deepInclude(outcome, { _tag: "OutOfMemory", limitBytes: 384 * MiB })
              assert.isAbove(usage.phases[0]?.memoryPeakBytes ?? 0, 300 * MiB)
            }))

          it.effect("a stop interrupts it, and its finalizers run", () =>
            Effect.gen(function*() {
              const { outcome, stdout } = yield* call("sleeps", {}, {
                graceMs: patience(10_000),
                onOutput: (text, stop) => text.includes("asleep") ? stop : Effect.void
              })
              assert.strictEqual(outcome._tag, "Stopped")
              assert.strictEqual(stdout.toString(), "[SLEEPS] asleep\n[SLEEPS] woken\n")
            }))

          it.effect("each call has a sandbox and a host of its own", () =>
            Effect.gen(function*() {
              for (let n = 0; n < 3; n++) {
                const { stdout } = yield* call("marks")
                assert.strictEqual(stdout.toString(), "[RESULT] {\"there\":false,\"calls\":1}\n")
              }
            }))

          it.effect("other jobs run in the same class", () =>
            Effect.gen(function*() {
              const { outcome, stdout, usage } = yield* Jobs.runIn(sandboxClass, {
                args: { command: "ls -A; ps -e 2>/dev/null | grep -c '[h]ost.cjs'; echo here" }
              })
              assert.deepInclude(outcome, { _tag: "Exited", code: 0 })
              assert.match(stdout.toString(), /here\n$/)
              if (driver === "oci") assert.strictEqual(stdout.toString(), "0\nhere\n")
              // A host that stood here before is not this job's.
              assert.isBelow(usage.phases[0]?.memoryPeakBytes ?? 0, 30 * MiB)
            }))

          it.effect("limits of a process are the job's", () =>
            Effect.gen(function*() {
              const { outcome, stderr, stdout } = yield* call("limits", {}, {
                limits: { openFiles: 60, fileBytes: 8192 }
              })
              assert.deepInclude(outcome, { _tag: "Exited", code: 0 }, stderr.toString())
              assert.match(stdout.toString(), /Max open files +60 +60 /)
              assert.match(stdout.toString(), /Max file size +8192 +8192 /)
            }))

          it.effect("what it sees is a sandbox's, not the worker's", () =>
            Effect.gen(function*() {
              const paths = ["/etc/shadow", state, join(state, "instances"), "/.stoker/guest", import.meta.filename]
              const { stdout } = yield* call("pries", { paths })
              const seen = JSON.parse(stdout.toString().slice("[RESULT] ".length))
              assert.deepStrictEqual(seen.env, ["HOME", "LANG", "PATH", "TMPDIR"])
              assert.notStrictEqual(seen.uid, 0)
              if (driver === "process") return
              assert.deepStrictEqual(seen.read.slice(0, 3), ["ENOENT", "ENOENT", "ENOENT"])
              assert.strictEqual(seen.read[3], "EACCES")
              assert.strictEqual(seen.network, "ENETUNREACH")
            }))
        }
      )
    })
  }
}

describe("hosts in a pool", () => {
  const state = Jobs.stateDirectory()
  const sandboxClass: SandboxClass = {
    ...classOf("oci", true),
    pool: { ...standardPool, minimum: 1, maximum: 2, refillPauseMs: 5 }
  }
  const call = (name: string, args: unknown = {}) => Jobs.runIn(sandboxClass, { function: name, args })
  const stats = Effect.map(Effect.flatMap(Pools.Pools, (pools) => pools.stats), ({ classes: [first] }) => first)
  const ready = stats.pipe(
    Effect.filterOrFail((found) => found !== undefined && found.idle >= 1 && found.making + found.leaving === 0),
    Effect.retry(Schedule.spaced("20 millis")),
    Effect.timeout(patience(20_000))
  )
  /** Processes of this worker's sandboxes that run a host. */
  const hosts = () =>
    readdirSync("/proc").filter((pid) => {
      if (!/^\d+$/.test(pid)) return false
      try {
        return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("/.stoker/functions/host.cjs") &&
          readdirSync(join(state, "instances")).some((instance) =>
            readFileSync(`/proc/${pid}/cgroup`, "utf8").includes(`/stoker-${instance}`)
          )
      } catch {
        return false
      }
    }).map(Number)

  leavesNothing(state)
  layer(Jobs.layerOf(sandboxClass, state, [file]), { excludeTestServices: true, timeout: "2 minutes" })(
    "kept",
    (it) => {
      it.effect("a call is counted from its beginning, however long its host has waited", () =>
        Effect.gen(function*() {
          yield* ready
          const first = yield* call("spins", {}).pipe(Effect.timeoutOption(1)) // takes the first one
          assert.isTrue(first._tag === "None")
          yield* ready
          yield* Effect.sleep(3000)
          const { outcome, usage: { phases: [usage] } } = yield* call("idle")
          assert.deepInclude(outcome, { _tag: "Exited", code: 0 })
          assert.isBelow(usage?.wallMicros ?? Infinity, 2_000_000)
          assert.isBelow(usage?.cpuMicros ?? Infinity, 60_000)
        }))

      it.effect("a host that dies while it waits is replaced, and nobody is given it", () =>
        Effect.gen(function*() {
          yield* ready
          Jobs.held(state)
          const before = (yield* stats)?.lost ?? 0
          const [pid] = hosts()
          assert.isDefined(pid)
          process.kill(pid ?? 0, "SIGKILL")
          yield* stats.pipe(
            Effect.filterOrFail((found) => (found?.lost ?? 0) > before),
            Effect.retry(Schedule.spaced("20 millis")),
            Effect.timeout(patience(10_000))
          )
          yield* ready
          assert.notInclude(hosts(), pid ?? 0)
          const { outcome } = yield* call("idle")
          assert.deepInclude(outcome, { _tag: "Exited", code: 0 })
        }))

      it.effect("each is used once, and another one waits then", () =>
        Effect.gen(function*() {
          const seen = new Set<number>()
          for (let n = 0; n < 3; n++) {
            yield* ready
            const waiting = hosts()
            for (const pid of waiting) seen.add(pid)
            const { outcome } = yield* call("marks")
            assert.deepInclude(outcome, { _tag: "Exited", code: 0 })
          }
          assert.isAtLeast(seen.size, 3)
        }))
    }
  )
})
