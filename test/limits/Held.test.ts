/** Limits beyond the usual ones, on the kernel this runs on: what it has is proven, what it lacks is refused. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, type Layer } from "effect"
import { existsSync, mkdtempSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Devices from "../../src/layers/cgroup/Devices.ts"
import type { Limits } from "../../src/schemas/Limits.ts"
import type { SandboxClass } from "../../src/schemas/SandboxClass.ts"
import { standardClass } from "../../src/schemas/WorkerConfig.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import { patience } from "../support/Slowness.ts"

const MiB = 2 ** 20

const isV2 = existsSync("/sys/fs/cgroup/cgroup.controllers")

/** On a disk whose I/O can be limited; /tmp may be memory. */
const onDisk = process.env["STOKER_TEST_DISK"] ?? tmpdir()

const python = (source: string) => ({ function: "code" as const, args: { language: "python", source } })

const classOf = (
  driver: "oci" | "process",
  ceiling: Partial<Limits>,
  more: Partial<SandboxClass> = {}
): SandboxClass => {
  const usual = standardClass(driver, driver)
  const time = { wallMs: patience(60_000), cpuMs: patience(60_000) }
  return {
    ...usual,
    ...more,
    ceiling: { ...usual.ceiling, ...time, ...ceiling },
    defaults: { ...usual.defaults, ...time }
  }
}

type Services = Layer.Success<ReturnType<typeof Jobs.layerOf>>

/** A test with an executor of this class to itself. */
const held = <E>(
  name: string,
  sandboxClass: SandboxClass,
  body: Effect.Effect<void, E, Services>,
  { onlyV2 = false } = {}
) =>
  it.live.skipIf(onlyV2 && !isV2)(name, () =>
    Effect.suspend(() => {
      // Workspaces of the process driver lie in it.
      const state = mkdtempSync(join(sandboxClass.driver === "process" ? onDisk : tmpdir(), "stoker-test-"))
      return body.pipe(
        Effect.provide(Jobs.layerOf(sandboxClass, state)),
        Effect.ensuring(Effect.sync(() => Jobs.remove(state)))
      )
    }), patience(120_000))

const seconds = (millis: number) => patience(millis) / 1000

describe("cores", () => {
  const sharing = classOf("oci", { cpuWeight: 1000 }, { cpuset: "0" })
  const share = `
import os, time
time.sleep(max(0, float(os.environ["BEGIN"]) - time.time()))
end = time.time() + ${seconds(4000)}
while time.time() < end: pass
print(time.process_time(), os.sched_getaffinity(0))`

  held(
    "weights of 100 and 300 share one core 1 to 3, and nobody sees another core",
    sharing,
    Effect.gen(function*() {
      const wanted = { ...python(share) }
      // Both have to be there from the first moment on: what one has alone is not shared.
      const env = { BEGIN: `${Date.now() / 1000 + seconds(1500)}` }
      const run = (cpuWeight: number) =>
        Jobs.runIn(sharing, { ...wanted, args: { ...wanted.args, env }, limits: { cpuWeight } })
      const ran = yield* Effect.all([run(100), run(300)], { concurrency: 2 })
      const [small = 0, large = 0] = ran.map(({ stdout }) => Number(stdout.toString().split(" ")[0]))
      assert.isAbove(large / small, 2.7)
      assert.isBelow(large / small, 3.3)
      for (const { stdout, usage } of ran) {
        assert.include(stdout.toString(), "{0}")
        const own = Number(stdout.toString().split(" ")[0]) * 1e6
        assert.isBelow(Math.abs((usage.phases[0]?.cpuMicros ?? 0) - own) / own, 0.05)
      }
    })
  )
})

describe("I/O", () => {
  const rate = 4 * MiB
  const limited = classOf("process", { ioWriteBytesPerSec: rate, ioReadBytesPerSec: rate, fileBytes: 256 * MiB })
  /** Past the page cache, which cgroup v1 does not see through. Prints the seconds it took for 12 MiB. */
  const direct = (mode: "read" | "write") => `
import mmap, os, time
block = mmap.mmap(-1, 2**20)
open("file", "wb").write(bytes(12 * 2**20)) if "${mode}" == "read" else None
if "${mode}" == "read": os.sync()
fd = os.open("file", (os.O_RDONLY if "${mode}" == "read" else os.O_WRONLY | os.O_CREAT) | os.O_DIRECT)
began = time.monotonic()
for _ in range(12): (os.readv(fd, [block]) if "${mode}" == "read" else os.writev(fd, [block]))
print(time.monotonic() - began)`

  for (const mode of ["write", "read"] as const) {
    held(
      `${mode}s are held at their rate, and counted`,
      limited,
      Effect.gen(function*() {
        const unlimited = mode === "read" ? { ioWriteBytesPerSec: rate } : { ioReadBytesPerSec: rate }
        const { outcome, stderr, stdout, usage } = yield* Jobs.runIn(limited, {
          ...python(direct(mode)),
          limits: unlimited
        })
        assert.strictEqual(outcome._tag, "Exited", stderr.toString())
        const took = Number(stdout.toString())
        assert.isAbove(took, 3 * 0.85, stderr.toString())
        assert.isBelow(took, 3 * 1.15)
        const counted = mode === "write" ? usage.phases[0]?.ioWriteBytes : usage.phases[0]?.ioReadBytes
        assert.isAtLeast(counted ?? 0, 12 * MiB)
        assert.isBelow(counted ?? Infinity, 30 * MiB)
      })
    )
  }

  held(
    "what the kernel writes back later is held too",
    limited,
    Effect.gen(function*() {
      const { stdout, usage } = yield* Jobs.runIn(
        limited,
        python(`
import os, time
began = time.monotonic()
with open("file", "wb") as file:
    file.write(bytes(12 * 2**20))
    file.flush()
    os.fsync(file.fileno())
print(time.monotonic() - began)`)
      )
      assert.isAbove(Number(stdout.toString()), 3 * 0.85)
      assert.isBelow(Number(stdout.toString()), 3 * 1.25)
      assert.isAtLeast(usage.phases[0]?.ioWriteBytes ?? 0, 12 * MiB)
    }),
    { onlyV2: true } // v1 does not see it; doctor and the worker's log say so
  )
})

describe("memory", () => {
  const soft = classOf("oci", { memoryHighBytes: 32 * MiB })
  held(
    isV2 ? "above memoryHigh it is slowed down, and does not die" : "memoryHigh is refused where it cannot be held",
    soft,
    Effect.gen(function*() {
      const grow = python(`
import time
blocks = []
began = time.monotonic()
for _ in range(36):
    blocks.append(bytearray(2**20))
print(time.monotonic() - began)`)
      const { outcome, usage } = yield* Jobs.runIn(soft, { ...grow, limits: { memoryHighBytes: 32 * MiB } })
      if (!isV2) {
        assert.strictEqual(outcome._tag, "Rejected")
        assert.include(JSON.stringify(outcome), "memoryHighBytes cannot be held: cgroup v1")
        return
      }
      assert.strictEqual(outcome._tag, "Exited", JSON.stringify(outcome))
      assert.isAbove(usage.phases[0]?.pressure?.memoryMicros ?? 0, 1000)
    })
  )

  // A child takes too much; its parent looks on, and would tell.
  const family = python(`
import os
if os.fork() == 0: block = bytearray(200 * 2**20)
else: print("child", os.waitstatus_to_exitcode(os.wait()[1]), flush=True)`)
  const grouped = classOf("oci", { oomGroup: true })

  held(
    "out of memory kills one of its processes; the rest goes on, and the job is said to be out of memory",
    grouped,
    Effect.gen(function*() {
      const { outcome, stdout, usage } = yield* Jobs.runIn(grouped, { ...family, limits: { memoryBytes: 64 * MiB } })
      assert.strictEqual(outcome._tag, "OutOfMemory")
      assert.strictEqual(stdout.toString(), "child -9\n")
      assert.strictEqual(usage.phases[0]?.oomKills, 1)
      assert.strictEqual(usage.phases[0]?.oomVictim, "python3")
    })
  )

  held(
    isV2 ? "with oomGroup all of it dies at once" : "oomGroup is refused where it cannot be held",
    grouped,
    Effect.gen(function*() {
      const limits = { memoryBytes: 64 * MiB, oomGroup: true }
      const { outcome, stdout, usage } = yield* Jobs.runIn(grouped, { ...family, limits })
      assert.strictEqual(outcome._tag, isV2 ? "OutOfMemory" : "Rejected", JSON.stringify(outcome))
      assert.strictEqual(stdout.toString(), "")
      if (isV2) assert.isAtLeast(usage.phases[0]?.oomKills ?? 0, 2)
    })
  )
})

describe("what was asked for and cannot be", () => {
  it.live("a state directory that the runtime would not see", () =>
    Effect.gen(function*() {
      const state = mkdtempSync("/mnt/stoker-test-")
      const sandboxClass = classOf("oci", {})
      const { outcome } = yield* Jobs.runIn(sandboxClass, { args: { argv: ["true"] } }).pipe(
        Effect.provide(Jobs.layerOf(sandboxClass, state)),
        Effect.ensuring(Effect.sync(() => Jobs.remove(state)))
      )
      assert.strictEqual(outcome._tag, "SandboxFailed")
      assert.match(JSON.stringify(outcome), /below \/mnt, where.*Use a state directory elsewhere/)
    }))

  const small = classOf("oci", { memoryBytes: 64 * MiB })
  held(
    "weights of disks without a scheduler for them",
    classOf("oci", { ioWeight: 1000 }),
    Effect.gen(function*() {
      const { outcome } = yield* Jobs.runIn(classOf("oci", { ioWeight: 1000 }), {
        args: { argv: ["true"] },
        limits: { ioWeight: 500 }
      })
      if (isV2 && Devices.disks().every((disk) => Devices.isWeighed(disk))) {
        return assert.strictEqual(outcome._tag, "Exited", JSON.stringify(outcome))
      }
      assert.strictEqual(outcome._tag, "Rejected")
      assert.match(JSON.stringify(outcome), /ioWeight cannot be held: (cgroup v1|weights mean nothing on)/)
    })
  )

  held(
    "more than the class has",
    small,
    Effect.gen(function*() {
      const refused = yield* Effect.flip(
        Jobs.runIn(small, { args: { argv: ["true"] }, limits: { memoryBytes: 65 * MiB } })
      )
      assert.include(String(refused), "memoryBytes 68157440 is above the class's 67108864")
    })
  )
})
