/** Jobs, their output and functions as messages of `stoker.v1`. */
import type { MessageInitShape } from "@bufbuild/protobuf"
import type { StreamSummary as Summary } from "../../schemas/JobEvent.ts"
import type { FunctionView, JobView } from "../../schemas/JobView.ts"
import { describe, type Outcome, type StreamName } from "../../schemas/Outcome.ts"
import type { PhaseUsage, Usage } from "../../schemas/Usage.ts"
import type { LogEnd, LogEntry, LogStream } from "../log/Log.ts"
import {
  type FunctionSchema,
  type JobSchema,
  JobState,
  type OutcomeSchema,
  type OutputEndSchema,
  type OutputSchema,
  OutputStream,
  type PhaseUsageSchema,
  type StreamSummarySchema,
  type UsageSchema
} from "./gen/stoker/v1/stoker_pb.js"
import { present, timeIf, wide, wideIf } from "./Numbers.ts"

const streams = { stdout: OutputStream.STDOUT, stderr: OutputStream.STDERR } as const

/** A value of a later version means what the absent one does. */
export const streamOf = (stream: OutputStream): LogStream =>
  stream === OutputStream.STDOUT ? "stdout" : stream === OutputStream.STDERR ? "stderr" : "all"

const states = { queued: JobState.QUEUED, running: JobState.RUNNING, ended: JobState.ENDED } as const

/** Undefined: any. */
export const stateOf = (state: JobState): JobView["state"] | undefined =>
  ({ [JobState.QUEUED]: "queued", [JobState.RUNNING]: "running", [JobState.ENDED]: "ended" } as const)[
    state as JobState.QUEUED
  ]

type OutcomeInit = MessageInitShape<typeof OutcomeSchema>

/** A total table: a new outcome does not compile until it has its place on the wire. */
const kinds: {
  readonly [T in Outcome["_tag"]]: (outcome: Extract<Outcome, { readonly _tag: T }>) => OutcomeInit["kind"]
} = {
  Exited: ({ code, phase }) => ({ case: "exited", value: { phase, code } }),
  Signalled: ({ phase, signal }) => ({ case: "signalled", value: { phase, signal } }),
  TimedOut: ({ limit, limitMs, phase }) => ({ case: "timedOut", value: { phase, limit, limitMs: wide(limitMs) } }),
  OutOfMemory: ({ limitBytes, phase }) => ({ case: "outOfMemory", value: { phase, limitBytes: wide(limitBytes) } }),
  OutputExceeded: ({ limitBytes, phase, stream }) => ({
    case: "outputExceeded",
    value: { phase, stream: streams[stream], limitBytes: wide(limitBytes) }
  }),
  Stopped: ({ reason }) => ({ case: "stopped", value: { reason } }),
  Rejected: ({ reason, remedy }) => ({ case: "rejected", value: { reason, remedy } }),
  SandboxFailed: ({ driver, reason, remedy }) => ({ case: "sandboxFailed", value: { driver, reason, remedy } }),
  Lost: ({ attempts }) => ({ case: "lost", value: { attempts } })
}

const outcomeMessage = (outcome: Outcome): OutcomeInit => {
  const kind = kinds[outcome._tag] as (outcome: Outcome) => OutcomeInit["kind"]
  return { kind: kind(outcome), summary: describe(outcome) } as OutcomeInit
}

const phaseMessage = (phase: PhaseUsage): MessageInitShape<typeof PhaseUsageSchema> => ({
  phase: phase.phase,
  wallMicros: wide(phase.wallMicros),
  cached: phase.cached ?? false,
  ...present({
    cpuMicros: wideIf(phase.cpuMicros),
    cpuUserMicros: wideIf(phase.cpuUserMicros),
    cpuSystemMicros: wideIf(phase.cpuSystemMicros),
    memoryPeakBytes: wideIf(phase.memoryPeakBytes),
    memoryAnonPeakBytes: wideIf(phase.memoryAnonPeakBytes),
    memoryFilePeakBytes: wideIf(phase.memoryFilePeakBytes),
    pidsPeak: wideIf(phase.pidsPeak),
    pidsRefused: wideIf(phase.pidsRefused),
    ioReadBytes: wideIf(phase.ioReadBytes),
    ioWriteBytes: wideIf(phase.ioWriteBytes),
    throttledMicros: wideIf(phase.throttledMicros),
    stdoutBytes: wideIf(phase.stdoutBytes),
    stderrBytes: wideIf(phase.stderrBytes),
    oomKills: wideIf(phase.oomKills),
    oomVictim: phase.oomVictim,
    pressureCpuMicros: wideIf(phase.pressure?.cpuMicros),
    pressureMemoryMicros: wideIf(phase.pressure?.memoryMicros),
    pressureIoMicros: wideIf(phase.pressure?.ioMicros)
  })
})

const usageMessage = ({ claimMicros, phases, provisionMicros, queuedMicros }: Usage): MessageInitShape<
  typeof UsageSchema
> => ({
  phases: phases.map(phaseMessage),
  ...present({
    queuedMicros: wideIf(queuedMicros),
    claimMicros: wideIf(claimMicros),
    provisionMicros: wideIf(provisionMicros)
  })
})

const summaryMessage = (summary: Summary): MessageInitShape<typeof StreamSummarySchema> => ({
  stream: streams[summary.stream],
  producedBytes: wide(summary.producedBytes),
  droppedBytes: wide(summary.droppedBytes),
  crc32: summary.crc32
})

/** A file that a job left. */
export const artefactMessage = ({ bytes, path, sha256 }: NonNullable<JobView["artefacts"]>[number]) => ({
  path,
  bytes: wide(bytes),
  sha256
})

/** A job. */
export const jobMessage = (job: JobView): MessageInitShape<typeof JobSchema> => ({
  id: job.id,
  owner: job.owner,
  intake: job.intake,
  function: job.function,
  state: states[job.state],
  attempt: job.attempt,
  output: (job.output ?? []).map(summaryMessage),
  artefacts: (job.artefacts ?? []).map(artefactMessage),
  artefactsStored: (job.artefactsStored ?? []).map(({ bytes, ...where }) => ({ ...where, bytes: wide(bytes) })),
  artefactsMissing: [...(job.artefactsMissing ?? [])],
  ...present({
    argsJson: job.args === undefined ? undefined : JSON.stringify(job.args),
    class: job.class as string | undefined,
    instance: job.instance as string | undefined,
    receivedAt: timeIf(job.receivedAtMs),
    startedAt: timeIf(job.startedAtMs),
    endedAt: timeIf(job.endedAtMs),
    outcome: job.outcome === undefined ? undefined : outcomeMessage(job.outcome),
    usage: job.usage === undefined ? undefined : usageMessage(job.usage)
  })
})

/** The end of an output. */
export const endMessage = ({ complete, summaries }: LogEnd): MessageInitShape<typeof OutputEndSchema> => ({
  complete,
  streams: summaries.map(summaryMessage)
})

export type OutputInit = MessageInitShape<typeof OutputSchema>

/** Clients take messages of 4 MiB at most unless they are told otherwise; smaller ones leave room between them. Bytes. */
const PIECE = 256 * 1024

const piece = (stream: StreamName, offset: number, data: Uint8Array): OutputInit => ({
  stream: streams[stream],
  content: { case: "bytes", value: { offset: wide(offset), data: data as Uint8Array<ArrayBuffer> } }
})

/** One entry: several messages if it is large. */
export const outputMessages = (entry: LogEntry): ReadonlyArray<OutputInit> => {
  if (entry._tag === "Gap") {
    const value = { from: wide(entry.from), to: wide(entry.to) }
    return [{ stream: streams[entry.stream], content: { case: "gap", value } }]
  }
  const { bytes, offset, stream } = entry
  if (bytes.length <= PIECE) return [piece(stream, offset, bytes)]
  return Array.from({ length: Math.ceil(bytes.length / PIECE) }, (_, index) => {
    const from = index * PIECE
    return piece(stream, offset + from, bytes.subarray(from, from + PIECE))
  })
}

/** A function. */
export const functionMessage = (view: FunctionView): MessageInitShape<typeof FunctionSchema> => ({
  name: view.name,
  title: view.title,
  description: view.description,
  argsSchemaJson: JSON.stringify(view.args),
  positional: view.positional.map(({ field, word }) => ({ field, word })),
  needsNetwork: view.needsNetwork
})
