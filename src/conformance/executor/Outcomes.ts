/** Every way a job can end, each told for what it is. */
import { Effect } from "effect"
import { Outcome } from "../../schemas/Outcome.ts"
import { between, define, expect, same } from "../Case.ts"
import { ConformanceHost } from "../ConformanceHost.ts"
import { run, slowly } from "../Runs.ts"

const MiB = 1024 * 1024
const { Exited, OutOfMemory, OutputExceeded, Signalled, TimedOut } = Outcome.cases

/** Takes memory and touches every page of it. */
export const hog = (mebibytes: number) => `x = bytearray(${mebibytes} * 2**20)\nprint(len(x))`

const rejected = Effect.fnUntraced(function*(outcome: Outcome, words: string) {
  const { reason = "", remedy = "" } = outcome._tag === "Rejected" ? outcome : {}
  yield* expect(`Rejected with ${words} in its reason, and a remedy`, reason.includes(words) && remedy !== "", outcome)
})

export const outcomes = [
  define(
    "Exited has the program's own code",
    [],
    Effect.forEach([0, 1, 42, 126, 127, 255], (code) =>
      Effect.gen(function*() {
        const { outcome } = yield* run({ run: `exit ${code}` })
        yield* same("the outcome", outcome, Exited.make({ phase: "run", code }))
      }), { concurrency: 2, discard: true })
  ),

  define(
    "what compiles is run",
    [],
    Effect.gen(function*() {
      const compile = "printf '#!/bin/sh\\necho made\\n' > made; chmod 755 made; echo compiled"
      const { outcome, stdout, usage } = yield* run({ compile, run: { argv: ["./made"] } })
      yield* same("the outcome", outcome, Exited.make({ phase: "run", code: 0 }))
      yield* same("stdout", stdout.toString(), "compiled\nmade\n")
      yield* same("the phases", usage.phases.map(({ phase }) => phase), ["compile", "run"])
    })
  ),

  define(
    "what does not compile is Exited in its compile phase and not run",
    [],
    Effect.gen(function*() {
      const { outcome, stderr, stdout, usage } = yield* run({ compile: "echo wrong >&2; exit 3", run: "echo ran" })
      yield* same("the outcome", outcome, Exited.make({ phase: "compile", code: 3 }))
      yield* same("stderr", stderr.toString(), "wrong\n")
      yield* same("stdout", stdout.toString(), "")
      yield* same("the phases", usage.phases.map(({ phase }) => phase), ["compile"])
    })
  ),

  define(
    "Signalled has the signal that the program died of",
    [],
    Effect.forEach([1, 2, 3, 6, 8, 9, 11, 13, 14, 15], (signal) =>
      Effect.gen(function*() {
        const { outcome } = yield* run({ run: `kill -${signal} $$; sleep 30` })
        yield* same("the outcome", outcome, Signalled.make({ phase: "run", signal }))
      }), { concurrency: 2, discard: true })
  ),

  define(
    "a crash is Signalled, also while compiling",
    [],
    Effect.gen(function*() {
      const crash = { python: "import ctypes\nctypes.string_at(0)" }
      const running = yield* run({ run: crash })
      yield* same("the outcome", running.outcome, Signalled.make({ phase: "run", signal: 11 }))
      const compiling = yield* run({ compile: crash, run: "echo ran" })
      yield* same("the outcome", compiling.outcome, Signalled.make({ phase: "compile", signal: 11 }))
    })
  ),

  ...(["compile", "run"] as const).map((phase) =>
    define(
      `TimedOut at its wall limit, in the ${phase} phase`,
      [],
      Effect.gen(function*() {
        const wallMs = yield* slowly(300)
        const limits = { wallMs }
        const { last, outcome } = yield* run(
          phase === "run" ? { run: "sleep 100", limits } : { compile: "sleep 100", compileLimits: limits, run: "true" }
        )
        yield* same("the outcome", outcome, TimedOut.make({ phase, limit: "wall", limitMs: wallMs }))
        yield* between("elapsed microseconds", last.wallMicros, wallMs * 1000, (yield* slowly(6000)) * 1000)
      })
    )
  ),

  ...(["compile", "run"] as const).map((phase) =>
    define(
      `TimedOut at its CPU limit, all processes together, in the ${phase} phase`,
      ["usage"],
      Effect.gen(function*() {
        const cpuMs = yield* slowly(300)
        const loops = "while :; do :; done & while :; do :; done"
        const { last, outcome } = yield* run(
          phase === "run"
            ? { run: loops, limits: { cpuMs } }
            : { compile: loops, compileLimits: { cpuMs }, run: "true" }
        )
        yield* same("the outcome", outcome, TimedOut.make({ phase, limit: "cpu", limitMs: cpuMs }))
        yield* between("microseconds of CPU", last.cpuMicros, cpuMs * 1000, (cpuMs + (yield* slowly(2000))) * 1000)
      })
    )
  ),

  define(
    "sleeping costs no CPU time",
    ["usage"],
    Effect.gen(function*() {
      const cpuMs = yield* slowly(500)
      const seconds = (cpuMs * 2) / 1000
      const { last, outcome } = yield* run({ run: `sleep ${seconds}`, limits: { cpuMs } })
      yield* same("the outcome", outcome, Exited.make({ phase: "run", code: 0 }))
      yield* between("elapsed microseconds", last.wallMicros, cpuMs * 2000)
    })
  ),

  define(
    "OutOfMemory when the main process took too much, in each phase",
    ["memory-limit"],
    Effect.gen(function*() {
      const limits = { memoryBytes: 64 * MiB }
      const running = yield* run({ run: { python: hog(200) }, limits })
      yield* same("the outcome", running.outcome, OutOfMemory.make({ phase: "run", limitBytes: 64 * MiB }))
      yield* same("stdout", running.stdout.toString(), "")
      const compiling = yield* run({ compile: { python: hog(200) }, compileLimits: limits, run: "true" })
      yield* same("the outcome", compiling.outcome, OutOfMemory.make({ phase: "compile", limitBytes: 64 * MiB }))
    })
  ),

  define(
    "OutOfMemory when only a child took too much and its parent survives",
    ["memory-limit"],
    Effect.gen(function*() {
      const python = `import os, sys\nif os.fork() == 0:\n  x = bytearray(200 * 2**20)\nos.wait()\nsys.exit(3)`
      const { outcome } = yield* run({ run: { python }, limits: { memoryBytes: 64 * MiB } })
      yield* same("the outcome", outcome, OutOfMemory.make({ phase: "run", limitBytes: 64 * MiB }))
    })
  ),

  define(
    "OutputExceeded on either stream, where the policy is kill",
    [],
    Effect.forEach(["stdout", "stderr"] as const, (stream) =>
      Effect.gen(function*() {
        const limits = { outputBytes: MiB, outputPolicy: "kill" } as const
        const script = "while :; do echo 0123456789012345678901234567890123456789; done"
        const { [stream]: bytes, outcome } = yield* run({
          run: stream === "stdout" ? script : `{ ${script}; } >&2`,
          limits
        })
        yield* same("the outcome", outcome, OutputExceeded.make({ phase: "run", stream, limitBytes: MiB }))
        yield* between("bytes of it", bytes.length, MiB)
      }), { discard: true })
  ),

  define(
    "output of just the limit is no excess",
    [],
    Effect.gen(function*() {
      const script = "head -c 65536 /dev/zero; head -c 65536 /dev/zero >&2"
      const ran = yield* run({ run: script, limits: { outputBytes: 65_536, outputPolicy: "kill" } })
      yield* same("the outcome", ran.outcome, Exited.make({ phase: "run", code: 0 }))
      yield* same("bytes of both streams", [ran.stdout.length, ran.stderr.length], [65_536, 65_536])
    })
  ),

  define(
    "Rejected: no such program",
    [],
    Effect.gen(function*() {
      const { outcome } = yield* run({ run: { argv: ["no-such-program"] } })
      yield* rejected(outcome, "no-such-program")
    })
  ),

  define(
    "Rejected: a file that may not be executed, one that may not be read, a directory, no program at all",
    [],
    Effect.gen(function*() {
      const script = "#!/bin/sh\necho ran\n"
      const plain = yield* run({ run: { argv: ["./plain"] }, files: { plain: script } })
      yield* rejected(plain.outcome, "plain")
      const hidden = yield* run({
        compile: "chmod 000 hidden",
        run: { argv: ["./hidden"] },
        executables: { hidden: script }
      })
      yield* rejected(hidden.outcome, "hidden")
      const folder = yield* run({ run: { argv: ["./folder"] }, files: { "folder/file": script } })
      yield* rejected(folder.outcome, "folder")
      const nonsense = yield* run({ run: { argv: ["./nonsense"] }, executables: { nonsense: "\u0001\u0002\u0003" } })
      yield* rejected(nonsense.outcome, "nonsense")
      const said = [plain, hidden, folder, nonsense].map(({ stdout }) => stdout.toString())
      yield* same("stdout", said, ["", "", "", ""])
    })
  ),

  define(
    "Rejected: limits that the driver lacks, before anything runs",
    [],
    Effect.gen(function*() {
      const { capabilities } = yield* ConformanceHost
      const optional = [
        ["cpu-weight", { cpuWeight: 50 }, "cpuWeight"],
        ["memory-high", { memoryHighBytes: 32 * MiB }, "memoryHighBytes"],
        ["swap", { swapBytes: 32 * MiB }, "swapBytes"],
        ["oom-group", { oomGroup: true }, "oomGroup"],
        ["io-weight", { ioWeight: 50 }, "ioWeight"],
        ["io-max", { ioReadsPerSec: 100 }, "ioReadsPerSec"]
      ] as const
      for (const [need, limits, name] of optional) {
        if (capabilities.has(need)) continue
        const { outcome, usage } = yield* run({ run: "echo ran", limits })
        yield* rejected(outcome, name)
        yield* same("the phases", usage.phases, [])
      }
      // What means the same as its absence asks for nothing.
      const { outcome } = yield* run({ run: "true", limits: { cpuWeight: 100, swapBytes: 0, oomGroup: false } })
      yield* same("the outcome", outcome, Exited.make({ phase: "run", code: 0 }))
    })
  ),

  define(
    "Rejected: files that the workspace cannot hold",
    ["disk-limit"],
    Effect.gen(function*() {
      const { outcome } = yield* run({
        run: "echo ran",
        files: { large: new Uint8Array(2 * MiB) },
        limits: { diskBytes: MiB }
      })
      yield* rejected(outcome, "")
    })
  ),

  define(
    "SandboxFailed when no sandbox can be made: whose driver, why, and what to do",
    [],
    Effect.gen(function*() {
      const { unmakeable } = yield* ConformanceHost
      const { outcome, usage } = yield* run({ run: "echo ran", class: unmakeable })
      const { driver, reason, remedy } = outcome._tag === "SandboxFailed" ? outcome : {}
      yield* expect(
        `SandboxFailed of ${unmakeable.driver} with reason and remedy`,
        driver === unmakeable.driver && reason !== "" && remedy !== "",
        outcome
      )
      yield* same("the phases", usage.phases, [])
    })
  )
]
