/** What a job is said to have used, held against what it knows of itself. */
import { afterAll, assert, describe, layer } from "@effect/vitest"
import { Effect } from "effect"
import * as Jobs from "../sandbox/Jobs.ts"
import { patience } from "../support/Slowness.ts"

const MiB = 2 ** 20

const python = (source: string) => ({ function: "code" as const, args: { language: "python", source } })

const within = (measured: number | undefined, real: number, part: number, what: string) => {
  assert.isAtLeast(measured ?? 0, real * (1 - part), what)
  assert.isAtMost(measured ?? Number.POSITIVE_INFINITY, real * (1 + part), what)
}

for (const driver of ["oci", "process"] as const) {
  const state = Jobs.stateDirectory()
  describe(`usage on ${driver}`, () => {
    afterAll(() => Jobs.remove(state))

    layer(Jobs.layer(driver, state), { excludeTestServices: true, timeout: patience(60_000) })(
      "in one executor",
      (it) => {
        it.effect("CPU time is that of the program's own getrusage, children and threads with it", () =>
          Effect.gen(function*() {
            const ran = yield* Jobs.run(
              driver,
              python(`
import os, resource, threading, time
def burn(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end: pass
if os.fork() == 0:
    burn(0.5)
    os._exit(0)
os.wait()
threads = [threading.Thread(target=burn, args=(0.3,)) for _ in range(2)]
[t.start() for t in threads]
[t.join() for t in threads]
total = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(sum(u.ru_utime for u in total), sum(u.ru_stime for u in total))`)
            )
            const [user = 0, system = 0] = ran.stdout.toString().split(" ").map((text) => Number(text) * 1e6)
            const [usage] = ran.usage.phases
            assert.isAbove(user + system, 1e6)
            within(usage?.cpuMicros, user + system, 0.05, "cpu")
            within((usage?.cpuUserMicros ?? 0) + (usage?.cpuSystemMicros ?? 0), user + system, 0.05, "user and system")
            assert.strictEqual(usage?.pidsPeak, 3)
          }))

        it.effect("peak memory is that of a known allocation, also when it is long gone, and told apart from files", () =>
          Effect.gen(function*() {
            const ran = yield* Jobs.run(
              driver,
              python(`
import mmap
block = mmap.mmap(-1, 160 * 2**20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for at in range(0, len(block), 4096): block[at] = 1
block.close()`)
            )
            const [usage] = ran.usage.phases
            const base = (yield* Jobs.run(driver, python("import mmap"))).usage.phases[0]
            const own = (usage?.memoryPeakBytes ?? 0) - (base?.memoryAnonPeakBytes ?? 0)
            within(own, 160 * MiB, 0.05, "peak memory")
            within((usage?.memoryAnonPeakBytes ?? 0) - (base?.memoryAnonPeakBytes ?? 0), 160 * MiB, 0.05, "its own")
            assert.isBelow(usage?.memoryFilePeakBytes ?? Number.POSITIVE_INFINITY, 16 * MiB)
          }))

        it.effect("files it wrote are memory of files", () =>
          Effect.gen(function*() {
            const ran = yield* Jobs.run(
              driver,
              python(`
with open("big", "wb") as file:
    for _ in range(40): file.write(bytes(2**20))`)
            )
            const [usage] = ran.usage.phases
            within(usage?.memoryFilePeakBytes, 40 * MiB, 0.15, "files")
            assert.isBelow(usage?.memoryAnonPeakBytes ?? Number.POSITIVE_INFINITY, 24 * MiB)
          }))

        it.effect("refused forks are counted", () =>
          Effect.gen(function*() {
            const ran = yield* Jobs.run(driver, {
              ...python(`
import os
refused = 0
for _ in range(12):
    try:
        if os.fork() == 0:
            import time; time.sleep(30)
    except OSError: refused += 1
print(refused)`),
              limits: { pids: 5 }
            })
            const [usage] = ran.usage.phases
            assert.strictEqual(ran.stdout.toString(), "8\n")
            assert.strictEqual(usage?.pidsRefused, 8)
            assert.strictEqual(usage?.pidsPeak, 5)
          }))

        it.effect("a phase held back by its cores says for how long", () =>
          Effect.gen(function*() {
            const burn = python("import time\nend = time.thread_time() + 0.15\nwhile time.thread_time() < end: pass")
            const ran = yield* Jobs.run(driver, { ...burn, limits: { cpus: 0.1 } })
            assert.strictEqual(ran.outcome._tag, "Exited", JSON.stringify(ran.outcome))
            const [usage] = ran.usage.phases
            assert.isAbove(usage?.wallMicros ?? 0, 1_000_000)
            assert.isAbove(usage?.throttledMicros ?? 0, 300_000)
          }))
      }
    )
  })
}
