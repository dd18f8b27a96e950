/** Runs programs on the executor that is tried, and keeps all it said. */
import { Effect, Option, type Scope, Stream } from "effect"
import { type Assignment, Executor, type Run, type RunEvent } from "../layers/executor/Executor.ts"
import { FunctionName, IntakeName, JobId, Owner } from "../schemas/Ids.ts"
import type { Limits } from "../schemas/Limits.ts"
import type { Outcome } from "../schemas/Outcome.ts"
import { baseEnv, type Phase, type ProgramFile, WorkPath } from "../schemas/Program.ts"
import type { SandboxClass } from "../schemas/SandboxClass.ts"
import type { PhaseUsage, Usage } from "../schemas/Usage.ts"
import { expect, Mismatch } from "./Case.ts"
import { ConformanceHost } from "./ConformanceHost.ts"

type NonEmpty = readonly [string, ...Array<string>]
const utf8 = new TextEncoder()

/** One program: what it is, not how. A text is a script for the shell. */
export type Command =
  | string
  | { readonly python: string; readonly args?: ReadonlyArray<string> }
  | { readonly argv: NonEmpty }

/** What is done with every event, before the next one is taken. */
export type OnEvent = (event: RunEvent, run: Run) => Effect.Effect<void>

/** What a case asks for; the rest is the class's. */
export interface Wanted {
  readonly compile?: Command
  readonly compileLimits?: Partial<Limits>
  readonly run: Command
  readonly limits?: Partial<Limits>
  readonly stdin?: string | Uint8Array
  readonly env?: Readonly<Record<string, string>>
  readonly files?: Readonly<Record<string, string | Uint8Array>>
  readonly executables?: Readonly<Record<string, string | Uint8Array>>
  readonly artefacts?: ReadonlyArray<string>
  readonly artefactBytes?: number
  readonly class?: SandboxClass
  readonly onEvent?: OnEvent
}

/** What came of it. */
export interface Ran {
  readonly events: ReadonlyArray<RunEvent>
  readonly outcome: Outcome
  readonly usage: Usage
  /** The run phase's, or an empty one. */
  readonly last: PhaseUsage
  readonly stdout: Buffer
  readonly stderr: Buffer
  readonly artefacts: ReadonlyMap<string, Buffer>
  /** Files that were asked for and did not come, each with its reason. */
  readonly missing: ReadonlyMap<string, string>
}

const bytesOf = (content: string | Uint8Array) => typeof content === "string" ? utf8.encode(content) : content

/** Files as a program has them. */
export const filesOf = (
  files: Readonly<Record<string, string | Uint8Array>>,
  executable = false
): ReadonlyArray<ProgramFile> =>
  Object.entries(files).map(([path, content]) => ({
    path: WorkPath.make(path),
    content: bytesOf(content),
    executable
  }))

/** One phase of the tried class, with what differs. */
export const phaseOf = Effect.fnUntraced(function*(
  command: Command,
  options: {
    readonly name?: Phase["name"]
    readonly limits?: Partial<Limits>
    readonly stdin?: string | Uint8Array
    readonly env?: Readonly<Record<string, string>>
  } = {}
) {
  const { programs, sandboxClass, slowness } = yield* ConformanceHost
  const { ceiling } = sandboxClass
  const argv: NonEmpty = typeof command === "string"
    ? [programs.shell, "-c", command]
    : "argv" in command
    ? command.argv
    : [programs.python, "-c", command.python, ...command.args ?? []]
  const patient = Math.min(ceiling.wallMs, 30_000 * slowness)
  const limits: Limits = {
    ...sandboxClass.defaults,
    wallMs: patient,
    cpuMs: Math.min(ceiling.cpuMs, patient),
    ...options.limits
  }
  const phase: Phase = {
    name: options.name ?? "run",
    argv,
    env: { ...baseEnv, ...options.env },
    stdin: bytesOf(options.stdin ?? ""),
    limits
  }
  return phase
})

let jobs = 0

/** The job and its program. */
export const assignmentOf = Effect.fnUntraced(function*(wanted: Wanted) {
  const { sandboxClass } = yield* ConformanceHost
  const run = yield* phaseOf(wanted.run, wanted)
  const compile = wanted.compile === undefined ? [] : [
    yield* phaseOf(wanted.compile, {
      name: "compile",
      ...(wanted.compileLimits === undefined ? {} : { limits: wanted.compileLimits })
    })
  ]
  const [first = run, ...others] = [...compile, run]
  jobs += 1
  const assignment: Assignment = {
    job: {
      id: JobId.make(`conformance-${jobs}`),
      owner: Owner.make("conformance"),
      intake: IntakeName.make("conformance"),
      function: FunctionName.make("command"),
      args: {},
      limits: {}
    },
    attempt: 1,
    program: {
      files: [...filesOf(wanted.files ?? {}), ...filesOf(wanted.executables ?? {}, true)],
      phases: [first, ...others],
      artefacts: (wanted.artefacts ?? []).map((path) => WorkPath.make(path))
    },
    class: wanted.class ?? sandboxClass,
    ...(wanted.artefactBytes === undefined ? {} : { artefactBytes: wanted.artefactBytes })
  }
  return assignment
})

/** Begins it; what it becomes is the caller's. */
export const start = Effect.fnUntraced(function*(wanted: Wanted) {
  return yield* (yield* Executor).start(yield* assignmentOf(wanted))
})

/** The files that came back. */
const artefactsOf = (events: ReadonlyArray<RunEvent>): ReadonlyMap<string, Buffer> =>
  new Map(
    events.flatMap((event) => event._tag === "Artefact" ? [[event.path, Buffer.from(event.content)] as const] : [])
  )

/** Why the others did not. */
const missingOf = (events: ReadonlyArray<RunEvent>): ReadonlyMap<string, string> =>
  new Map(events.flatMap((event) => event._tag === "ArtefactMissing" ? [[event.path, event.reason] as const] : []))

/** What is wrong with the order in which they came, or nothing. */
export const disorderOf = (events: ReadonlyArray<RunEvent>): string | undefined => {
  let phase: string | undefined
  let isReady = false
  const begun: Array<string> = []
  for (const [index, event] of events.entries()) {
    const at = `event ${index}, ${event._tag}`
    switch (event._tag) {
      case "Ready":
        if (isReady || begun.length > 0) return `${at}: a sandbox is ready once, before all phases`
        isReady = true
        break
      case "PhaseStarted":
        if (!isReady) return `${at}: before Ready`
        if (phase !== undefined) return `${at}: ${phase} has not ended`
        if (begun.includes(event.phase)) return `${at}: ${event.phase} began twice`
        phase = event.phase
        begun.push(phase)
        break
      case "Output":
        if (phase === undefined) return `${at}: outside a phase`
        break
      case "PhaseEnded":
        if (phase !== event.phase || event.usage.phase !== phase) return `${at}: of ${event.phase} during ${phase}`
        phase = undefined
        break
      case "Finished": {
        if (phase !== undefined) return `${at}: ${phase} has not ended`
        if (index !== events.length - 1) return `${at}: followed by ${events[index + 1]?._tag}`
        const told = event.usage.phases.map((usage) => usage.phase)
        if (told.join() !== begun.join()) return `${at}: usage of ${told.join()} where ${begun.join()} ran`
        break
      }
      default:
        if (phase !== undefined) return `${at}: within a phase`
    }
  }
  return events.at(-1)?._tag === "Finished" ? undefined : "no Finished at the end"
}

/** All that a run under way says, to its end. Fails if it says it in a wrong order. */
export const follow = Effect.fnUntraced(function*(run: Run, onEvent: OnEvent = () => Effect.void) {
  const events: Array<RunEvent> = []
  yield* Stream.runForEach(run.events, (event) => {
    events.push(event)
    return onEvent(event, run)
  })
  const disorder = disorderOf(events)
  yield* expect("events in order, and Finished once, at the end", disorder === undefined, disorder)
  const finished = events.at(-1)
  if (finished?._tag !== "Finished") return yield* new Mismatch({ expected: "Finished", seen: "none" })
  const part = (stream: "stdout" | "stderr") =>
    Buffer.concat(
      events.flatMap((event) => event._tag === "Output" && event.stream === stream ? [Buffer.from(event.bytes)] : [])
    )
  const ran: Ran = {
    events,
    outcome: finished.outcome,
    usage: finished.usage,
    last: finished.usage.phases.at(-1) ?? { phase: "run", wallMicros: 0 },
    stdout: part("stdout"),
    stderr: part("stderr"),
    artefacts: artefactsOf(events),
    missing: missingOf(events)
  }
  return ran
})

/** Runs it to its end and removes it. */
export const run = (wanted: Wanted): Effect.Effect<Ran, Mismatch, Executor | ConformanceHost> =>
  Effect.scoped(Effect.flatMap(start(wanted), (under) => follow(under, wanted.onEvent)))

/** The same, in a scope of the caller: it is removed when that closes. */
export const held = (wanted: Wanted): Effect.Effect<Ran, Mismatch, Executor | ConformanceHost | Scope.Scope> =>
  Effect.flatMap(start(wanted), (under) => follow(under, wanted.onEvent))

/** Stops a run when its output has these words, so many times at once. */
export const stopAt = (words: string, graceMs: number, times = 1): OnEvent => (event, under) =>
  event._tag === "Output" && Buffer.from(event.bytes).includes(words)
    ? Effect.forEach(Array.from({ length: times }), () => under.stop({ reason: "enough", graceMs }), { discard: true })
    : Effect.void

/** A part of the machine's time: so many milliseconds where it is plain. */
export const slowly = (millis: number): Effect.Effect<number, never, ConformanceHost> =>
  Effect.map(ConformanceHost, ({ slowness }) => Math.ceil(millis * slowness))

/** What does not come within so many milliseconds is none. */
export const within = <A, E, R>(millis: number, effect: Effect.Effect<A, E, R>) =>
  Effect.flatMap(
    slowly(millis),
    (patience) => Effect.map(Effect.timeoutOption(effect, patience), Option.getOrUndefined)
  )
