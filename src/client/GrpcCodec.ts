/** What goes over stoker.v1 and what it means: requests as messages, messages as views. */
import { create, type MessageInitShape } from "@bufbuild/protobuf"
import { type Timestamp, timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt"
import { Effect, Schema } from "effect"
import type {
  FollowEvent,
  FollowRequest,
  JobRef,
  ListRequest,
  ReadRequest,
  StartRequest
} from "../layers/api/JobApi.ts"
import * as pb from "../layers/grpc/gen/stoker/v1/stoker_pb.js"
import type { LogEntry, LogStream } from "../layers/log/Log.ts"
import { FunctionView, JobView } from "../schemas/JobView.ts"
import type { LimitsRequest } from "../schemas/Limits.ts"
import type { StreamName } from "../schemas/Outcome.ts"
import type { Terms } from "../schemas/Terms.ts"
import type { OutputSlice } from "./StokerClient.ts"

/** An answer that this client does not understand. */
export class NotUnderstood extends Schema.TaggedError<NotUnderstood>()("NotUnderstood", { reason: Schema.String }) {
  override get message() {
    return this.reason
  }
}

const { OutputPolicy, OutputStream, Priority, JobState } = pb

/** Leaves out what is absent. */
const present = <T extends object>(fields: T) =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as {
    readonly [K in keyof T]?: Exclude<T[K], undefined>
  }

const big = (value: number | undefined) => value === undefined ? undefined : BigInt(value)
const text = (value: string) => value === "" ? undefined : value
const timeMs = (value: Timestamp | undefined) => value === undefined ? undefined : Math.round(timestampMs(value))

const streamTo = (stream: LogStream | undefined): pb.OutputStream =>
  stream === "stdout" ? OutputStream.STDOUT : stream === "stderr" ? OutputStream.STDERR : OutputStream.UNSPECIFIED

const streamOf = (stream: pb.OutputStream): StreamName => stream === OutputStream.STDERR ? "stderr" : "stdout"

const ref = ({ id, owner }: JobRef) => ({ id, owner: owner ?? "" })

const limitsTo = (limits: LimitsRequest): MessageInitShape<typeof pb.LimitsSchema> => {
  const { cpuMs, cpuWeight, cpus, diskBytes, diskInodes, fileBytes, ioWeight, memoryBytes, oomGroup, openFiles } =
    limits
  const { ioReadBytesPerSec, ioReadsPerSec, ioWriteBytesPerSec, ioWritesPerSec, memoryHighBytes } = limits
  const { outputBytes, outputPolicy, pids, swapBytes, wallMs } = limits
  return present({
    wallMs: big(wallMs),
    cpuMs: big(cpuMs),
    memoryBytes: big(memoryBytes),
    pids,
    cpus,
    fileBytes: big(fileBytes),
    diskBytes: big(diskBytes),
    diskInodes,
    outputBytes: big(outputBytes),
    openFiles,
    outputPolicy: outputPolicy === undefined
      ? undefined
      : outputPolicy === "kill"
      ? OutputPolicy.KILL
      : OutputPolicy.TRUNCATE,
    cpuWeight,
    memoryHighBytes: big(memoryHighBytes),
    swapBytes: big(swapBytes),
    oomGroup,
    ioWeight,
    ioReadBytesPerSec: big(ioReadBytesPerSec),
    ioWriteBytesPerSec: big(ioWriteBytesPerSec),
    ioReadsPerSec: big(ioReadsPerSec),
    ioWritesPerSec: big(ioWritesPerSec)
  })
}

const priorities = { high: Priority.HIGH, normal: Priority.NORMAL, low: Priority.LOW } as const

const termsTo = (
  { expiresAtMs, notBeforeMs, priority, retry }: Partial<Terms>
): MessageInitShape<typeof pb.TermsSchema> =>
  present({
    priority: priority === undefined ? undefined : priorities[priority],
    notBefore: notBeforeMs === undefined ? undefined : timestampFromMs(notBeforeMs),
    expiresAt: expiresAtMs === undefined ? undefined : timestampFromMs(expiresAtMs),
    retry: retry === undefined ? undefined : { ...retry, on: [...retry.on] }
  })

/** Every function goes as the generic form: its own definition checks it, and what it is need not be known here. */
export const startTo = (request: StartRequest) =>
  create(pb.StartRequestSchema, {
    id: request.id ?? "",
    owner: request.owner ?? "",
    class: request.class ?? "",
    webhook: request.webhook ?? "",
    waitSeconds: (request.waitMs ?? 0) / 1000,
    ...(request.limits === undefined ? {} : { limits: limitsTo(request.limits) }),
    ...(request.terms === undefined ? {} : { terms: termsTo(request.terms) }),
    job: {
      case: "call",
      value: { function: request.function, args: { case: "argsJson", value: JSON.stringify(request.args ?? {}) } }
    }
  })

export const stopTo = (job: JobRef & { readonly graceMs?: number; readonly reason?: string }) =>
  create(pb.StopRequestSchema, {
    ...ref(job),
    reason: job.reason ?? "",
    ...(job.graceMs === undefined ? {} : { graceSeconds: job.graceMs / 1000 })
  })

export const statusTo = (job: JobRef) => create(pb.StatusRequestSchema, ref(job))
export const functionsTo = create(pb.FunctionsRequestSchema)
export const deleteTo = (job: JobRef) => create(pb.DeleteRequestSchema, ref(job))

const states = { queued: JobState.QUEUED, running: JobState.RUNNING, ended: JobState.ENDED } as const

export const listTo = ({ cursor, function: name, limit, owner, state }: ListRequest) =>
  create(pb.ListRequestSchema, {
    state: state === undefined ? JobState.UNSPECIFIED : states[state],
    function: name ?? "",
    owner: owner ?? "",
    limit: limit ?? 0,
    cursor: cursor ?? ""
  })

/** A server gives no more at once. */
const MOST_BYTES = 1024 * 1024

export const readTo = (request: ReadRequest) =>
  create(pb.ReadRequestSchema, {
    ...ref(request),
    stream: streamTo(request.stream),
    offset: BigInt(request.offset),
    maxBytes: Math.max(1, Math.min(request.maxBytes, MOST_BYTES)),
    run: request.run ?? "",
    waitSeconds: (request.waitMs ?? 0) / 1000
  })

export const followTo = (request: FollowRequest) => {
  const { from = { offset: 0 } } = request
  return create(pb.FollowRequestSchema, {
    ...ref(request),
    stream: streamTo(request.stream),
    from: "offset" in from
      ? { case: "offset", value: BigInt(from.offset) }
      : "lastLines" in from
      ? { case: "lastLines", value: from.lastLines }
      : { case: "newOnly", value: true },
    run: request.run ?? "",
    noWait: request.wait === false
  })
}

export const artefactTo = (job: JobRef, path: string, offset: number) =>
  create(pb.ArtefactRequestSchema, { ...ref(job), path, offset: BigInt(offset) })

const decodeView = Schema.decodeUnknownEffect(JobView)
const decodeFunction = Schema.decodeUnknownEffect(FunctionView)
const parseJson = Schema.decodeUnknownEffect(Schema.fromJsonString(Schema.Json))

const understood = <A, E extends { readonly message: string }>(effect: Effect.Effect<A, E>) =>
  Effect.mapError(
    effect,
    (error) => new NotUnderstood({ reason: `the answer is not understood: ${error.message.replaceAll("\n", " ")}` })
  )

const summaryOf = ({ crc32, droppedBytes, producedBytes, stream }: pb.StreamSummary) => ({
  stream: streamOf(stream),
  producedBytes: Number(producedBytes),
  droppedBytes: Number(droppedBytes),
  crc32
})

const outcomeOf = ({ kind }: pb.Outcome): unknown => {
  switch (kind.case) {
    case "exited":
      return { _tag: "Exited", phase: kind.value.phase, code: kind.value.code }
    case "signalled":
      return { _tag: "Signalled", phase: kind.value.phase, signal: kind.value.signal }
    case "timedOut":
      return {
        _tag: "TimedOut",
        phase: kind.value.phase,
        limit: kind.value.limit,
        limitMs: Number(kind.value.limitMs)
      }
    case "outOfMemory":
      return { _tag: "OutOfMemory", phase: kind.value.phase, limitBytes: Number(kind.value.limitBytes) }
    case "outputExceeded":
      return {
        _tag: "OutputExceeded",
        phase: kind.value.phase,
        stream: streamOf(kind.value.stream),
        limitBytes: Number(kind.value.limitBytes)
      }
    case "stopped":
      return { _tag: "Stopped", reason: kind.value.reason }
    case "rejected":
      return { _tag: "Rejected", reason: kind.value.reason, remedy: kind.value.remedy }
    case "sandboxFailed":
      return {
        _tag: "SandboxFailed",
        driver: kind.value.driver,
        reason: kind.value.reason,
        remedy: kind.value.remedy
      }
    case "lost":
      return { _tag: "Lost", attempts: kind.value.attempts }
    case undefined:
      return undefined
  }
}

const num = (value: bigint | undefined) => value === undefined ? undefined : Number(value)

const phaseOf = (phase: pb.PhaseUsage) => {
  const pressure = present({
    cpuMicros: num(phase.pressureCpuMicros),
    memoryMicros: num(phase.pressureMemoryMicros),
    ioMicros: num(phase.pressureIoMicros)
  })
  return present({
    phase: phase.phase,
    wallMicros: Number(phase.wallMicros),
    cpuMicros: num(phase.cpuMicros),
    cpuUserMicros: num(phase.cpuUserMicros),
    cpuSystemMicros: num(phase.cpuSystemMicros),
    memoryPeakBytes: num(phase.memoryPeakBytes),
    memoryAnonPeakBytes: num(phase.memoryAnonPeakBytes),
    memoryFilePeakBytes: num(phase.memoryFilePeakBytes),
    pidsPeak: num(phase.pidsPeak),
    pidsRefused: num(phase.pidsRefused),
    ioReadBytes: num(phase.ioReadBytes),
    ioWriteBytes: num(phase.ioWriteBytes),
    throttledMicros: num(phase.throttledMicros),
    stdoutBytes: num(phase.stdoutBytes),
    stderrBytes: num(phase.stderrBytes),
    oomKills: num(phase.oomKills),
    oomVictim: phase.oomVictim,
    cached: phase.cached ? true : undefined,
    pressure: Object.keys(pressure).length === 0 ? undefined : pressure
  })
}

const usageOf = ({ claimMicros, phases, provisionMicros, queuedMicros }: pb.Usage) =>
  present({
    queuedMicros: num(queuedMicros),
    claimMicros: num(claimMicros),
    provisionMicros: num(provisionMicros),
    phases: phases.map(phaseOf)
  })

const stateNames: Readonly<Record<number, string>> = {
  [JobState.QUEUED]: "queued",
  [JobState.RUNNING]: "running",
  [JobState.ENDED]: "ended"
}

export const artefactOf = ({ bytes, path, sha256 }: pb.Artefact) => ({ path, bytes: Number(bytes), sha256 })

export const jobOf = Effect.fnUntraced(function*(job: pb.Job | undefined) {
  if (job === undefined) return yield* new NotUnderstood({ reason: "the answer has no job" })
  const { argsJson } = job
  return yield* understood(decodeView(present({
    id: job.id,
    owner: job.owner,
    intake: job.intake,
    function: job.function,
    args: argsJson === undefined ? undefined : yield* understood(parseJson(argsJson)),
    class: text(job.class),
    state: stateNames[job.state],
    attempt: job.attempt,
    instance: text(job.instance),
    receivedAtMs: timeMs(job.receivedAt),
    startedAtMs: timeMs(job.startedAt),
    endedAtMs: timeMs(job.endedAt),
    outcome: job.outcome === undefined ? undefined : outcomeOf(job.outcome),
    usage: job.usage === undefined ? undefined : usageOf(job.usage),
    output: job.output.length === 0 ? undefined : job.output.map(summaryOf),
    artefacts: job.artefacts.length === 0 ? undefined : job.artefacts.map(artefactOf),
    artefactsStored: job.artefactsStored.length === 0
      ? undefined
      : job.artefactsStored.map(({ bucket, bytes, key, path }) => ({ path, bucket, key, bytes: Number(bytes) })),
    artefactsMissing: job.artefactsMissing.length === 0
      ? undefined
      : job.artefactsMissing.map(({ path, reason }) => ({ path, reason }))
  })))
})

export const functionOf = Effect.fnUntraced(function*(one: pb.Function) {
  return yield* understood(decodeFunction({
    name: one.name,
    title: one.title,
    description: one.description,
    args: yield* understood(parseJson(one.argsSchemaJson)),
    positional: one.positional.map(({ field, word }) => ({ field, word })),
    needsNetwork: one.needsNetwork
  }))
})

const entryOf = ({ content, stream }: pb.Output): ReadonlyArray<LogEntry> => {
  switch (content.case) {
    case "bytes":
      return [{
        _tag: "Bytes",
        stream: streamOf(stream),
        offset: Number(content.value.offset),
        bytes: content.value.data
      }]
    case "gap":
      return [{
        _tag: "Gap",
        stream: streamOf(stream),
        from: Number(content.value.from),
        to: Number(content.value.to)
      }]
    case undefined:
      return []
  }
}

const endOf = ({ complete, streams }: pb.OutputEnd) => ({ summaries: streams.map(summaryOf), complete })

export const sliceOf = ({ end, entries, next, run }: pb.ReadResponse): OutputSlice => ({
  entries: entries.flatMap(entryOf),
  next: Number(next),
  run,
  ...(end === undefined ? {} : { end: endOf(end) })
})

/** An event; none for one that a newer server has and this client does not know. */
export const eventsOf = Effect.fnUntraced(function*(
  { event }: pb.FollowResponse
): Effect.fn.Return<ReadonlyArray<FollowEvent>, NotUnderstood> {
  switch (event.case) {
    case "begun":
      return [{
        _tag: "Begun",
        run: event.value.run,
        attempt: event.value.attempt,
        offset: Number(event.value.offset)
      }]
    case "output":
      return entryOf(event.value)
    case "ended": {
      const { end, job } = event.value
      return [{ _tag: "Ended", job: yield* jobOf(job), ...(end === undefined ? {} : { end: endOf(end) }) }]
    }
    case "paused":
      return [{ _tag: "Paused", job: yield* jobOf(event.value.job), next: Number(event.value.next) }]
    case undefined:
      return []
  }
})
