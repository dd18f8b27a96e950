/** What a follower is sent over HTTP: one Server-Sent Event, or one line of NDJSON, for each fact. */
import { Schema } from "effect"
import { StreamSummary } from "../JobEvent.ts"
import { JobView } from "../JobView.ts"
import { StreamName } from "../Outcome.ts"
import { Problem } from "./Problem.ts"

/** An attempt's output begins: what came before was another one's. */
const Begun = Schema.Struct({ run: Schema.String, attempt: Schema.Natural, offset: Schema.Natural })

/** Bytes of the output: as `text` where they are UTF-8, else as `base64`; always one of the two. */
const Output = Schema.Struct({
  stream: StreamName,
  /** Of the first byte, in the stream that was asked for. */
  offset: Schema.Natural,
  text: Schema.optionalKey(Schema.String),
  base64: Schema.optionalKey(Schema.String)
})

/** Bytes `from` to `to` (exclusive) were produced and not kept. */
const Gap = Schema.Struct({ stream: StreamName, from: Schema.Natural, to: Schema.Natural })

/** The last one of a job that has ended. Without `output` nothing is kept of it; `complete` is false if its tail may be missing. */
const End = Schema.Struct({
  job: JobView,
  output: Schema.optionalKey(Schema.Array(StreamSummary)),
  complete: Schema.optionalKey(Schema.Boolean)
})

/** Not waiting: there is no more now. */
const Paused = Schema.Struct({ job: JobView, next: Schema.Natural })

const dataOf = { begun: Begun, output: Output, gap: Gap, end: End, paused: Paused, problem: Problem } as const

const event = <const Name extends keyof typeof dataOf>(name: Name) =>
  Schema.Struct({
    /** `OFFSET@RUN`, where to go on: sent back as Last-Event-ID. */
    id: Schema.optional(Schema.String),
    event: Schema.Literal(name),
    data: Schema.fromJsonString(dataOf[name])
  })

/** As Server-Sent Events have it. `problem` is what ended the following before its time. */
export const FollowSse = Schema.Union([
  event("begun"),
  event("output"),
  event("gap"),
  event("end"),
  event("paused"),
  event("problem")
])
export type FollowSse = typeof FollowSse.Type

const line = <const Name extends keyof typeof dataOf>(name: Name) =>
  Schema.Struct({ id: Schema.optionalKey(Schema.String), event: Schema.Literal(name), data: dataOf[name] })

/** The same as a value, and as one line of NDJSON. */
export const FollowLine = Schema.Union([
  line("begun"),
  line("output"),
  line("gap"),
  line("end"),
  line("paused"),
  line("problem")
])
export type FollowLine = typeof FollowLine.Type
