/** `stoker demo`: three jobs through the embedded queue of a worker of its own, one after the other. */
import { layerSecureRandom } from "@effect/platform-node/NodeCrypto"
import { Effect, Layer, Option } from "effect"
import { accessSync, constants, existsSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, relative } from "node:path"
import { fileURLToPath } from "node:url"
import { Worker } from "../actors/Worker.ts"
import { programs } from "../functions/BuiltIn.ts"
import { Control } from "../layers/control/Control.ts"
import { NAME } from "../layers/intake/Embedded.ts"
import { keyOf } from "../schemas/Job.ts"
import { describe, isSuccess } from "../schemas/Outcome.ts"
import { standardConfig } from "../schemas/WorkerConfig.ts"
import { layerWorker } from "../wiring.ts"
import { attend } from "./Attend.ts"
import { ExitWith, exitWith, usageFailure } from "./CliFailure.ts"
import { exitCode } from "./ExitCode.ts"
import { type JobOptions, requestOf } from "./JobSource.ts"
import * as Loggers from "./Loggers.ts"
import { say, terminal, wantsColour } from "./Output.ts"
import { mainPhase, type Report } from "./Report.ts"
import * as Signals from "./Signals.ts"
import { style, table } from "./Style.ts"
import { formatBytes, formatMicros } from "./Units.ts"
import { live } from "./Views.ts"

/** Shows what a job sees of the machine: its kernel, and next to nothing else. */
const LOOK_AROUND = [
  `echo "kernel     $(uname -sr)"`,
  `echo "user       $(id -un), $(id -u) of its own user namespace"`,
  `echo "files      $(ls / | tr '\\n' ' ')"`,
  `echo "processes  $(ls -d /proc/[0-9]* | wc -l), all its own"`,
  `echo "network    $(tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' ' | tr '\\n' ' ')and nothing behind it"`,
  `touch /usr/here 2>&1 || true`
].join("\n")

const shape = {
  language: Option.none(),
  variant: Option.none(),
  stdin: Option.none(),
  env: [],
  noCache: false,
  artefact: [],
  class: Option.none(),
  limits: {},
  container: { image: Option.none(), entrypoint: Option.none() }
}

/** The folder of examples: in a checkout, from source or beside dist. */
const findExamples = Effect.suspend(() => {
  const folders = ["../../examples", "../examples"].map((path) => fileURLToPath(new URL(path, import.meta.url)))
  const found = folders.find((folder) => existsSync(join(folder, "hello.c")))
  return found === undefined
    ? Effect.fail(usageFailure("the examples are not here", "Run the demo from a checkout of Stoker: npm run demo"))
    : Effect.succeed(found)
})

const isWritable = (folder: string) => {
  try {
    accessSync(folder, constants.W_OK)
    return true
  } catch {
    return false
  }
}

/** As one would type it here. */
const shortest = (path: string) => {
  const here = relative(process.cwd(), path)
  return here === "" ? "." : here.startsWith("..") ? path : here
}

const jobs = (examples: string): ReadonlyArray<JobOptions & { readonly title: string; readonly typed: string }> => {
  const file = (name: string) => shortest(join(examples, name))
  const program = (title: string, name: string) => ({
    ...shape,
    title,
    typed: `stoker run ${file(name)}`,
    files: [join(examples, name)],
    operands: []
  })
  return [
    program("a C program, compiled and run", "hello.c"),
    program("a Python program, its output as it comes", "primes.py"),
    {
      ...shape,
      title: "a command that looks around",
      typed: "stoker run -- sh -c '…'",
      files: [],
      operands: ["sh", "-c", LOOK_AROUND]
    }
  ]
}

const row = ({ driver, id, outcome, usage }: Report): ReadonlyArray<string> => {
  const phase = mainPhase(usage)
  const shown = <A>(value: A | undefined, format: (value: A) => string) => value === undefined ? "" : format(value)
  return [
    id,
    shown(phase?.wallMicros, formatMicros),
    shown(phase?.cpuMicros, formatMicros),
    shown(phase?.memoryPeakBytes, formatBytes),
    `${driver ?? ""}, ${shown(usage.provisionMicros, formatMicros)}`,
    describe(outcome)
  ]
}

export const runDemo = Effect.fn("RunDemo.runDemo")(
  function*(options: { readonly state: Option.Option<string> }) {
    const signals = yield* Signals.take
    const examples = yield* findExamples
    const project = join(examples, "..")
    const state = Option.getOrElse(
      options.state,
      () => join(isWritable(project) ? join(project, ".stoker") : join(tmpdir(), "stoker"), "demo")
    )
    const look = style(wantsColour("stderr"))
    const view = yield* live({ progress: terminal("stderr").isTerminal })
    const list = jobs(examples)

    const one = Effect.fnUntraced(function*(job: (typeof list)[number], index: number) {
      yield* say(`\n${look.bold(`${index + 1} of ${list.length}: ${job.title}`)}\n${look.cyan(`$ ${job.typed}`)}`)
      const request = yield* requestOf(job, { intake: NAME, prefix: "demo", command: "run" })
      const control = yield* Control
      const enter = Effect.as(control.submit(request), Effect.never)
      return yield* attend({ key: keyOf(request.job), driver: "oci", enter, view, signals })
    })
    const life = Effect.gen(function*() {
      const reports: Array<Report> = []
      for (const [index, job] of list.entries()) {
        const report = yield* one(job, index)
        reports.push(report)
        if (report.outcome._tag === "Stopped" || report.outcome._tag === "SandboxFailed") break
      }
      yield* (yield* Worker).drain
      return reports
    }).pipe(
      Effect.provide(layerWorker({
        stateDirectory: state,
        config: standardConfig,
        embedded: true,
        direct: "direct",
        functions: programs
      }))
    )

    yield* say(look.bold("Stoker runs each job alone in a sandbox that exists only for it."))
    const forced = Effect.andThen(signals.second, Effect.fail(new ExitWith({ code: exitCode.stopped })))
    const reports = yield* Effect.raceFirst(life, forced)
    const [bad] = reports.filter(({ outcome }) => !isSuccess(outcome))
    yield* say(`\n${table([["JOB", "WALL", "CPU", "PEAK MEMORY", "SANDBOX IN", "OUTCOME"], ...reports.map(row)])}\n`)
    if (bad !== undefined) {
      yield* say("stoker: not all of it worked; `stoker doctor` tells what this host lacks")
      return yield* exitWith(bad.outcome._tag === "Stopped" ? exitCode.stopped : exitCode.usage)
    }
    const stoker = shortest(join(project, "dist", "stoker"))
    const next = [
      [`  ${stoker} run -- ls -l /`, "run something else"],
      [`  ${stoker} list --state ${shortest(state)}`, "what ran"],
      [`  ${stoker} doctor`, "what this host can do"],
      [`  ${stoker} worker --help`, "serve a queue"]
    ]
    yield* say(`Nothing of them is left but their output. Next:\n${table(next)}`)
  },
  Effect.provide(Layer.merge(Loggers.layer({ format: "auto", usual: "Error" }), layerSecureRandom)),
  Effect.scoped
)
