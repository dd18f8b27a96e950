/** JobEvents as Stoker tells them over AMQP: one JSON object each, the same to the exchange and to a reply queue. */
import { Schema } from "effect"
import { JobId, type JobKey, Owner } from "../Ids.ts"
import { Artefact, broughtBack, JobEvent, MissingArtefact, StoredArtefact, type StreamSummary } from "../JobEvent.ts"
import { Outcome, StreamName } from "../Outcome.ts"
import { PhaseName } from "../Program.ts"
import { PhaseUsage, Usage } from "../Usage.ts"
import { Labels } from "./StokerJob.ts"

/** One stream's output: what was kept of it, in order, as far as the message's bound allows. */
export const StokerOutput = Schema.Struct({
  stream: StreamName,
  producedBytes: Schema.Natural,
  /** Bytes the log did not keep. */
  droppedBytes: Schema.Natural,
  /** CRC-32 of the kept bytes, as in the log's end record. */
  crc32: Schema.Natural,
  /** `utf-8` where the bytes are that. */
  encoding: Schema.Literals(["utf-8", "base64"]),
  content: Schema.String,
  /** `bytes` are missing after the first `at` bytes of the (decoded) content. */
  leftOut: Schema.Array(Schema.Struct({ at: Schema.Natural, bytes: Schema.Natural }))
})
export type StokerOutput = typeof StokerOutput.Type

/** A file the job left. `content` is base64, where the message had room for all of it; else it can be asked for. */
export const StokerArtefact = Schema.Struct({ ...Artefact.fields, content: Schema.optionalKey(Schema.String) })
export type StokerArtefact = typeof StokerArtefact.Type

const common = {
  owner: Owner,
  /** 0: it was never claimed. */
  attempt: Schema.Natural,
  /** Rises by one within an attempt. */
  seq: Schema.Natural,
  /** Milliseconds since 1970, by the worker's clock. */
  atMs: Schema.Natural,
  /** As they were sent with the job. */
  labels: Schema.optionalKey(Labels)
}

export const StokerEvent = Schema.Union([
  Schema.Struct({ event: Schema.Literal("received"), id: JobId, ...common }),
  Schema.Struct({
    event: Schema.Literal("running"),
    id: JobId,
    ...common,
    /** Where its counters are on the worker's host, e.g. its cgroup. */
    place: Schema.optionalKey(Schema.String)
  }),
  Schema.Struct({ event: Schema.Literal("phase-started"), id: JobId, ...common, phase: PhaseName }),
  Schema.Struct({ event: Schema.Literal("phase-ended"), id: JobId, ...common, phase: PhaseName, usage: PhaseUsage }),
  Schema.Struct({
    event: Schema.Literal("ended"),
    /** Absent for a message that had none. */
    id: Schema.optionalKey(JobId),
    ...common,
    outcome: Outcome,
    usage: Usage,
    output: Schema.Array(StokerOutput),
    /** What came of the files it asked to have back. Absent: none. */
    artefacts: Schema.optionalKey(Schema.Array(StokerArtefact)),
    artefactsStored: Schema.optionalKey(Schema.Array(StoredArtefact)),
    artefactsMissing: Schema.optionalKey(Schema.Array(MissingArtefact))
  })
])
export type StokerEvent = typeof StokerEvent.Type

/** Reads what `encode` wrote. */
export const decode = Schema.decodeUnknownOption(Schema.fromJsonString(StokerEvent))

/** Every field is plain JSON. */
export const encode = (event: StokerEvent): string => JSON.stringify(event)

/** An event in this dialect's words. `output` and `artefacts` are for the last one. */
export const eventOf = (
  event: JobEvent,
  labels: Labels | undefined,
  output: ReadonlyArray<StokerOutput>,
  artefacts: ReadonlyArray<StokerArtefact> = []
): StokerEvent => {
  const { atMs, attempt, key: { id, owner }, seq } = event
  const all = { id, owner, attempt, seq, atMs, ...(labels === undefined ? {} : { labels }) }
  return JobEvent.match(event, {
    Received: (): StokerEvent => ({ event: "received", ...all }),
    Running: ({ place }): StokerEvent => ({ event: "running", ...all, ...(place === undefined ? {} : { place }) }),
    PhaseStarted: ({ phase }): StokerEvent => ({ event: "phase-started", ...all, phase }),
    PhaseEnded: ({ phase, usage }): StokerEvent => ({ event: "phase-ended", ...all, phase, usage }),
    Ended: ({ artefactsMissing = [], artefactsStored = [], outcome, usage }): StokerEvent => ({
      event: "ended",
      ...all,
      outcome,
      usage,
      output,
      ...broughtBack({ artefacts, artefactsStored, artefactsMissing })
    })
  })
}

/** Output as it is read from the log: bytes that were kept, or the number of bytes that were not. */
type Piece = Uint8Array | number

/** One stream's summary and pieces as the last event carries them. */
export const outputOf = (summary: StreamSummary, pieces: ReadonlyArray<Piece>): StokerOutput => {
  const leftOut: Array<{ readonly at: number; readonly bytes: number }> = []
  const kept: Array<Uint8Array> = []
  let at = 0
  for (const piece of pieces) {
    if (typeof piece === "number") {
      if (piece > 0) leftOut.push({ at, bytes: piece })
    } else {
      kept.push(piece)
      at += piece.byteLength
    }
  }
  const bytes = Buffer.concat(kept)
  const text = bytes.toString("utf8")
  const isText = Buffer.from(text, "utf8").equals(bytes)
  return {
    ...summary,
    encoding: isText ? "utf-8" : "base64",
    content: isText ? text : bytes.toString("base64"),
    leftOut
  }
}

/** The bytes of an output's content. */
export const bytesOf = ({ content, encoding }: StokerOutput): Uint8Array =>
  Buffer.from(content, encoding === "utf-8" ? "utf8" : "base64")

/** A word of a topic: no dot, no wildcard. Different names may look alike here; the body has them whole. */
const word = (text: string, maximum: number) => text.replaceAll(/[^A-Za-z0-9_@-]/g, "_").slice(0, maximum)

/** `<owner>.<id>.<event>`, within AMQP's 255 bytes. */
export const routingKeyOf = ({ id, owner }: Pick<JobKey, "id" | "owner">, event: StokerEvent["event"]): string =>
  `${word(owner, 100)}.${word(id, 128)}.${event}`
