/** Each limit holds, and holds for its own phase alone. One clear proof each. */
import { Effect } from "effect"
import { Outcome } from "../../schemas/Outcome.ts"
import { between, define, expect, same } from "../Case.ts"
import { run, slowly } from "../Runs.ts"
import { hog } from "./Outcomes.ts"

const MiB = 1024 * 1024
const exited = Outcome.cases.Exited.make({ phase: "run", code: 0 })

/** Children until one is refused; they live until the end. Prints how many there were. */
const forks =
  "import os, time\nn = 0\ntry:\n  while n < 60:\n    if os.fork() == 0: time.sleep(1000)\n    n += 1\nexcept OSError: pass\nprint(n)"

/** So many milliseconds of CPU time. */
const burn = (millis: number) =>
  `import time\nend = time.thread_time() + ${millis / 1000}\nwhile time.thread_time() < end: pass`

export const heldLimits = [
  define(
    "memoryBytes: what fits is let be, what does not is not had",
    ["memory-limit"],
    Effect.gen(function*() {
      const limits = { memoryBytes: 128 * MiB }
      const fits = yield* run({ run: { python: hog(64) }, limits })
      yield* same("the outcome", fits.outcome, exited)
      const bursts = yield* run({ run: { python: hog(192) }, limits })
      yield* same("the outcome", bursts.outcome._tag, "OutOfMemory")
    })
  ),

  define(
    "memoryBytes counts what is written to the workspace in memory, and shared memory",
    ["memory-limit", "memory-workspace"],
    Effect.gen(function*() {
      const { outcome } = yield* run({
        run: "head -c 200000000 /dev/zero > large; echo had it",
        limits: { memoryBytes: 64 * MiB, fileBytes: 512 * MiB, diskBytes: 512 * MiB }
      })
      yield* same("the outcome", outcome._tag, "OutOfMemory")
    })
  ),

  define(
    "pids: so many processes and no more, by the program's own count",
    ["pids-limit"],
    Effect.gen(function*() {
      const { outcome, stdout } = yield* run({ run: { python: forks }, limits: { pids: 8 } })
      yield* same("the outcome", outcome, exited)
      yield* same("children beside their parent", stdout.toString(), "7\n")
    })
  ),

  define(
    "pids: a fork bomb is held and ends",
    ["pids-limit"],
    Effect.gen(function*() {
      const wallMs = yield* slowly(1000)
      const bomb = "echo lit; f() { f | f & }; f; sleep 100"
      const { outcome, stdout } = yield* run({ run: bomb, limits: { pids: 32, wallMs } })
      yield* same("stdout", stdout.toString(), "lit\n")
      yield* expect("TimedOut or Exited", outcome._tag === "TimedOut" || outcome._tag === "Exited", outcome)
    })
  ),

  define(
    "cpus: a quarter of a core takes four times as long",
    ["cpu-limit"],
    Effect.gen(function*() {
      const millis = yield* slowly(250)
      const { last, outcome } = yield* run({ run: { python: burn(millis) }, limits: { cpus: 0.25 } })
      yield* same("the outcome", outcome, exited)
      // The first tenth of a second may come at once.
      yield* between("elapsed microseconds", last.wallMicros, millis * 2500)
    })
  ),

  define(
    "fileBytes: no file grows beyond it",
    [],
    Effect.gen(function*() {
      const python =
        "import os\nf = os.open('f', os.O_CREAT | os.O_WRONLY)\ntry:\n  while True: os.write(f, bytes(100000))\nexcept OSError as e: print(e.strerror, os.fstat(f).st_size)"
      const { outcome, stdout } = yield* run({ run: { python }, limits: { fileBytes: MiB } })
      yield* same("the outcome", outcome, exited)
      yield* same("stdout", stdout.toString(), `File too large ${MiB}\n`)
    })
  ),

  define(
    "fileBytes: who does not expect it dies of its signal",
    [],
    Effect.gen(function*() {
      const python = "import signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_DFL)\nopen('f', 'wb').write(bytes(2**21))"
      const { outcome } = yield* run({ run: { python }, limits: { fileBytes: MiB } })
      yield* same("the outcome", outcome, Outcome.cases.Signalled.make({ phase: "run", signal: 25 }))
    })
  ),

  define(
    "diskBytes: the workspace holds so much and no more",
    ["disk-limit"],
    Effect.gen(function*() {
      const limits = { diskBytes: 4 * MiB, fileBytes: 512 * MiB }
      const full = yield* run({ run: "head -c 100000000 /dev/zero > large; wc -c < large", limits })
      yield* expect("No space left", full.stderr.toString().includes("No space left"), full.stderr.toString())
      yield* between("bytes that were written", Number(full.stdout.toString()), 3 * MiB, 4 * MiB)
    })
  ),

  define(
    "diskInodes: so many files and no more",
    ["disk-limit"],
    Effect.gen(function*() {
      const python =
        "n = 0\ntry:\n  while n < 10000:\n    open(f'f{n}', 'w')\n    n += 1\nexcept OSError as e: print(e.strerror)\nprint(n)"
      const { stdout } = yield* run({ run: { python }, limits: { diskInodes: 256 } })
      const [word, count] = stdout.toString().split("\n")
      yield* same("the error", word, "No space left on device")
      yield* between("files", Number(count), 200, 256)
    })
  ),

  define(
    "outputBytes: where the policy is truncate, the program goes on to its end",
    [],
    Effect.gen(function*() {
      const { outcome, stderr } = yield* run({
        run: "head -c 3000000 /dev/zero; echo end >&2",
        limits: { outputBytes: 1000, outputPolicy: "truncate" }
      })
      yield* same("stderr", stderr.toString(), "end\n")
      yield* same("the outcome", outcome, exited)
    })
  ),

  define(
    "openFiles: so many descriptors and no more",
    [],
    Effect.gen(function*() {
      const python =
        "import os\nlast = 0\ntry:\n  while last < 10000: last = os.open('/dev/null', os.O_RDONLY)\nexcept OSError as e: print(e.strerror, last)"
      const { stdout } = yield* run({ run: { python }, limits: { openFiles: 40 } })
      yield* same("stdout", stdout.toString(), "Too many open files 39\n")
    })
  ),

  define(
    "each phase has its own limits: smaller ones after larger ones, and larger after smaller",
    ["pids-limit"],
    Effect.gen(function*() {
      const script = "ulimit -n"
      const up = yield* run({
        compile: script,
        compileLimits: { openFiles: 32 },
        run: script,
        limits: { openFiles: 64 }
      })
      yield* same("openFiles of both phases", up.stdout.toString(), "32\n64\n")
      const python = { python: forks }
      const wider = yield* run({ compile: python, compileLimits: { pids: 5 }, run: python, limits: { pids: 9 } })
      yield* same("children in both phases", wider.stdout.toString(), "4\n8\n")
      const narrower = yield* run({ compile: python, compileLimits: { pids: 9 }, run: python, limits: { pids: 5 } })
      yield* same("children in both phases", narrower.stdout.toString(), "8\n4\n")
    })
  ),

  define(
    "cpuWeight: who has less of it gets less of a core that two want",
    ["cpu-weight", "usage"],
    Effect.gen(function*() {
      const wallMs = yield* slowly(1500)
      const python = "import os\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\nwhile True: pass"
      const spin = (cpuWeight: number) => run({ run: { python }, limits: { cpuWeight, wallMs, cpus: 1 } })
      const [light, heavy] = yield* Effect.all([spin(10), spin(100)], { concurrency: 2 })
      const ratio = (heavy.last.cpuMicros ?? 0) / Math.max(1, light.last.cpuMicros ?? 1)
      yield* between("CPU of the one with ten times the weight, to that of the other", ratio, 2)
    })
  ),

  define(
    "memoryHighBytes: what lies above is slowed down, not killed",
    ["memory-high", "usage"],
    Effect.gen(function*() {
      const wallMs = yield* slowly(3000)
      const limits = { memoryBytes: 512 * MiB, memoryHighBytes: 48 * MiB, wallMs }
      const { last, outcome } = yield* run({ run: { python: hog(400) }, limits })
      yield* expect("an end without OutOfMemory", outcome._tag === "TimedOut" || outcome._tag === "Exited", outcome)
      yield* between("microseconds in want of memory", last.pressure?.memoryMicros, 100_000)
    })
  ),

  define(
    "swapBytes: so much beyond memory, where the machine has it, and no more",
    ["swap"],
    Effect.gen(function*() {
      const limits = { memoryBytes: 64 * MiB, swapBytes: 64 * MiB }
      const bursts = yield* run({ run: { python: hog(256) }, limits })
      yield* same("the outcome", bursts.outcome._tag, "OutOfMemory")
      const { stdout } = yield* run({ run: "grep SwapFree /proc/meminfo" })
      const freeBytes = Number(/(\d+) kB/.exec(stdout.toString())?.[1] ?? 0) * 1024
      const fits = yield* run({ run: { python: hog(88) }, limits })
      yield* same("the outcome", fits.outcome._tag, freeBytes > 64 * MiB ? "Exited" : "OutOfMemory")
    })
  ),

  define(
    "oomGroup: out of memory ends all of it at once",
    ["oom-group"],
    Effect.gen(function*() {
      const python = "import os\nif os.fork() == 0:\n  x = bytearray(200 * 2**20)\nos.wait()\nprint('survived')"
      const { outcome, stdout } = yield* run({ run: { python }, limits: { memoryBytes: 64 * MiB, oomGroup: true } })
      yield* same("the outcome", outcome._tag, "OutOfMemory")
      yield* same("stdout", stdout.toString(), "")
    })
  ),

  define(
    "ioReadBytesPerSec: so many bytes from the disk a second",
    ["io-max"],
    Effect.gen(function*() {
      // Past the page cache, out of whatever large file of a disk the sandbox sees.
      const python = `
import mmap, os, time
best = None
for top, folders, files in os.walk('/usr/lib'):
  for name in files:
    path = os.path.join(top, name)
    if not os.path.islink(path) and os.stat(path).st_size > 5 * 2**20: best = path
  if best: break
f = os.open(best, os.O_RDONLY | os.O_DIRECT)
block = mmap.mmap(-1, 2**18)
began = time.monotonic()
for _ in range(16): os.readv(f, [block])
print(time.monotonic() - began)`
      const fast = yield* run({ run: { python } })
      const slow = yield* run({ run: { python }, limits: { ioReadBytesPerSec: 2 * MiB } })
      yield* same("the outcomes", [fast.outcome, slow.outcome], [exited, exited])
      // A root that lies on no disk, as over a network, is read without one: there is nothing to be held.
      if ((fast.usage.phases[0]?.ioReadBytes ?? 4 * MiB) < 4 * MiB) return
      // Four megabytes; the first of them may come at once.
      yield* between("seconds it took", Number(slow.stdout.toString()), 1)
    })
  ),

  define(
    "ioWeight: is taken, and the job runs",
    ["io-weight"],
    Effect.gen(function*() {
      const { outcome } = yield* run({ run: "true", limits: { ioWeight: 50 } })
      yield* same("the outcome", outcome, exited)
    })
  )
]
