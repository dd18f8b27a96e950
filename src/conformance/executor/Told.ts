/** What a job is said to have used, held against what it knows of itself: right, or absent. */
import { Effect } from "effect"
import type { PhaseUsage } from "../../schemas/Usage.ts"
import { between, define, expect, same } from "../Case.ts"
import { ConformanceHost } from "../ConformanceHost.ts"
import { follow, run, slowly, start } from "../Runs.ts"
import { hog } from "./Outcomes.ts"

const MiB = 1024 * 1024

/** Burns CPU in a child, two threads and itself, then says what the kernel counted for it, in seconds. */
const burner = (seconds: number) => `
import os, resource, threading, time
def burn(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end: pass
if os.fork() == 0:
    burn(${seconds})
    os._exit(0)
os.wait()
threads = [threading.Thread(target=burn, args=(${seconds / 2},)) for _ in range(2)]
[t.start() for t in threads]
[t.join() for t in threads]
total = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(sum(u.ru_utime + u.ru_stime for u in total))`

/** Numbers of a phase that are there must be whole and not negative. */
const plausible = Effect.fnUntraced(function*(usage: PhaseUsage) {
  const { pressure, ...rest } = usage
  for (const [name, value] of [...Object.entries(rest), ...Object.entries(pressure ?? {})]) {
    if (typeof value !== "number") continue
    yield* expect(`${name} to be whole and not negative`, Number.isSafeInteger(value) && value >= 0, value)
  }
})

export const told = [
  define(
    "CPU time is the program's own count within 5 %, children and threads included",
    ["usage", "own-cpu"],
    Effect.gen(function*() {
      const { last, stdout } = yield* run({ run: { python: burner(0.25) }, limits: { cpus: 2 } })
      const own = Number(stdout.toString()) * 1e6
      yield* between("the program's own count", own, 450_000)
      yield* between("cpuMicros", last.cpuMicros, own * 0.95, own * 1.05 + 20_000)
      if (last.cpuUserMicros === undefined && last.cpuSystemMicros === undefined) return
      const parts = (last.cpuUserMicros ?? 0) + (last.cpuSystemMicros ?? 0)
      yield* between("user and system together", parts, own * 0.95, own * 1.05 + 20_000)
    })
  ),

  define(
    "each phase is told its own CPU time",
    ["usage"],
    Effect.gen(function*() {
      const { usage } = yield* run({ compile: { python: burner(0.25) }, run: "true" })
      const [compile, last] = usage.phases
      yield* between("of the phase that burns", compile?.cpuMicros, 450_000)
      // Emulation makes much of little.
      yield* between(
        "of the one that does nothing",
        last?.cpuMicros,
        0,
        Math.max(300_000, (compile?.cpuMicros ?? 0) / 2)
      )
    })
  ),

  define(
    "the peak of memory is a known allocation within 5 %, also when it is long gone",
    ["usage"],
    Effect.gen(function*() {
      const python = "import mmap\nblock = mmap.mmap(-1, %d * 2**20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n" +
        "for at in range(0, len(block), 4096): block[at] = 1\nblock.close()"
      const peakOf = Effect.fnUntraced(function*(mebibytes: number) {
        const { last } = yield* run({ run: { python: python.replace("%d", String(mebibytes)) } })
        return { whole: last.memoryPeakBytes, anon: last.memoryAnonPeakBytes }
      })
      const large = yield* peakOf(161)
      if (large.whole === undefined) return
      const small = yield* peakOf(1)
      yield* between("peak", large.whole - (small.whole ?? 0), 160 * MiB * 0.95, 160 * MiB * 1.05)
      if (large.anon === undefined) return
      yield* between("the part of processes", large.anon - (small.anon ?? 0), 160 * MiB * 0.95, 160 * MiB * 1.05)
    })
  ),

  define(
    "what a workspace in memory holds is memory of files, not of processes",
    ["usage", "memory-workspace"],
    Effect.gen(function*() {
      const { last } = yield* run({ run: "head -c 41943040 /dev/zero > large", limits: { fileBytes: 64 * MiB } })
      yield* between("the whole", last.memoryPeakBytes, 40 * MiB)
      if (last.memoryFilePeakBytes === undefined) return
      yield* between("the part of files", last.memoryFilePeakBytes, 38 * MiB, 48 * MiB)
      yield* between("the part of processes", last.memoryAnonPeakBytes, 0, 16 * MiB)
    })
  ),

  define(
    "processes are counted: the most at once, and those refused",
    ["usage", "pids-limit"],
    Effect.gen(function*() {
      const python =
        "import os, time\nrefused = 0\nfor _ in range(12):\n  try:\n    if os.fork() == 0: time.sleep(1000)\n  except OSError: refused += 1\nprint(refused)"
      const { last, stdout } = yield* run({ run: { python }, limits: { pids: 5 } })
      yield* same("refused, by the program's count", stdout.toString(), "8\n")
      yield* expect("pidsPeak of 5, or none", (last.pidsPeak ?? 5) === 5, last)
      yield* expect("pidsRefused of 8, or none", (last.pidsRefused ?? 8) === 8, last)
    })
  ),

  define(
    "time that the cores' limit took is told",
    ["usage", "cpu-limit"],
    Effect.gen(function*() {
      const millis = yield* slowly(150)
      const python = `import time\nend = time.thread_time() + ${millis / 1000}\nwhile time.thread_time() < end: pass`
      const { last } = yield* run({ run: { python }, limits: { cpus: 0.1 } })
      yield* between("elapsed", last.wallMicros, millis * 5000)
      if (last.throttledMicros === undefined) return
      yield* between("held back", last.throttledMicros, millis * 2000)
    })
  ),

  define(
    "kills for want of memory are counted, and nobody is named who is not there",
    ["usage", "memory-limit"],
    Effect.gen(function*() {
      const { last } = yield* run({ run: { python: hog(200) }, limits: { memoryBytes: 64 * MiB } })
      yield* between("oomKills", last.oomKills, 1)
      yield* expect("the victim's name, or none", last.oomVictim === undefined || last.oomVictim !== "", last.oomVictim)
      yield* between("peak", last.memoryPeakBytes ?? 64 * MiB, 48 * MiB, 66 * MiB)
      const calm = yield* run({ run: "true" })
      yield* same("kills in a job that has room", calm.last.oomKills ?? 0, 0)
    })
  ),

  define(
    "what each stream carried is told, kept or not",
    [],
    Effect.gen(function*() {
      const { last } = yield* run({
        run: "head -c 200000 /dev/zero; head -c 300 /dev/zero >&2",
        limits: { outputBytes: 1000, outputPolicy: "truncate" }
      })
      yield* same("bytes of both", [last.stdoutBytes ?? 200_000, last.stderrBytes ?? 300], [200_000, 300])
    })
  ),

  define(
    "elapsed time is the program's own",
    [],
    Effect.gen(function*() {
      const seconds = (yield* slowly(400)) / 1000
      const { last, usage } = yield* run({ run: `sleep ${seconds}` })
      yield* between("microseconds", last.wallMicros, seconds * 1e6, (yield* slowly(20_000)) * 1000)
      yield* between("provisioning", usage.provisionMicros ?? 0, 0, (yield* slowly(20_000)) * 1000)
    })
  ),

  define(
    "every number is whole and not negative; bytes to disks only if there were any",
    ["usage"],
    Effect.gen(function*() {
      const { usage } = yield* run({ compile: { python: hog(20) }, run: "echo x > file; cat file" })
      for (const phase of usage.phases) yield* plausible(phase)
      const [, last] = usage.phases
      yield* between("bytes read", last?.ioReadBytes ?? 0, 0, 64 * MiB)
      yield* between("bytes written", last?.ioWriteBytes ?? 0, 0, 64 * MiB)
    })
  ),

  define(
    "what it uses now can be seen, where the executor can tell, and never before or after",
    [],
    Effect.scoped(Effect.gen(function*() {
      const { capabilities } = yield* ConformanceHost
      const under = yield* start({
        run: { python: "x = bytearray(64 * 2**20)\nprint('up', flush=True)\nimport time\ntime.sleep(1000)" }
      })
      if (under.observe === undefined) {
        yield* under.stop({ reason: "enough", graceMs: 0 })
        return void (yield* follow(under))
      }
      let seen: Readonly<Record<string, unknown>> = {}
      yield* follow(under, (event) =>
        event._tag === "Output"
          ? Effect.gen(function*() {
            seen = { ...yield* under.observe ?? Effect.succeed({}) }
            yield* under.stop({ reason: "enough", graceMs: 0 })
          })
          : Effect.void)
      if (!capabilities.has("usage")) return
      const { cpuMicros, memoryBytes, pids } = seen
      yield* between("cpuMicros", Number(cpuMicros ?? 1), 1)
      yield* between("memoryBytes", Number(memoryBytes ?? 64 * MiB), 60 * MiB, 128 * MiB)
      yield* between("pids", Number(pids ?? 1), 1, 2)
    }))
  )
]
