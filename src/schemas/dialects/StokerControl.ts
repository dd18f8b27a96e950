/** Questions to workers over AMQP and their answers: one JSON object each. What a worker does not know it leaves to others. */
import { Schema } from "effect"
import { ClassName, FunctionName, InstanceId, IntakeName, JobId, Owner } from "../Ids.ts"
import { JobState } from "../Job.ts"
import { Artefact, StreamSummary } from "../JobEvent.ts"
import { StreamName } from "../Outcome.ts"
import { Settlement } from "../Settlement.ts"

const job = {
  id: JobId,
  /** Default: the asking user's, else the workers' default owner. A user the broker vouches for finds only its own. */
  owner: Schema.optionalKey(Owner),
  /** The door it came through. Default `stoker`. */
  intake: Schema.optionalKey(IntakeName)
}

/** Most bytes one answer carries. */
const piece = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 4 * 1024 * 1024 }))

const upTo = (maximum: number) => Schema.Int.check(Schema.isBetween({ minimum: 0, maximum }))

export const StokerQuestion = Schema.Union([
  Schema.Struct({
    ask: Schema.Literal("stop"),
    ...job,
    reason: Schema.String.check(Schema.isMaxLength(500)),
    /** Milliseconds between TERM and KILL. */
    graceMs: upTo(3_600_000)
  }),
  Schema.Struct({ ask: Schema.Literal("status"), ...job }),
  Schema.Struct({
    ask: Schema.Literal("list"),
    id: Schema.optionalKey(JobId),
    owner: Schema.optionalKey(Owner),
    function: Schema.optionalKey(FunctionName),
    state: Schema.optionalKey(JobState),
    limit: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 10_000 }))
  }),
  Schema.Struct({
    ask: Schema.Literal("read"),
    ...job,
    stream: Schema.Literals(["stdout", "stderr", "all"]),
    /** In produced bytes of that stream. */
    offset: Schema.Natural,
    maxBytes: piece,
    /** Go on in this writing of the log only, as an answer named it. */
    run: Schema.optionalKey(Schema.String.check(Schema.isMaxLength(200))),
    /** Milliseconds to wait for news; workers wait 10 s at most. */
    waitMs: upTo(3_600_000)
  }),
  /** Bytes of a file that an ended job left. */
  Schema.Struct({
    ask: Schema.Literal("artefact"),
    ...job,
    path: Schema.String.check(Schema.isMaxLength(4095)),
    offset: Schema.Natural,
    maxBytes: piece
  })
])
export type StokerQuestion = typeof StokerQuestion.Type

/** How a job stands. What was sent with it stays with its sender. */
export const StokerJobView = Schema.Struct({
  id: JobId,
  owner: Owner,
  intake: IntakeName,
  function: FunctionName,
  state: JobState,
  attempt: Schema.Natural,
  /** The worker that has it or had it. */
  instance: Schema.optionalKey(InstanceId),
  /** Milliseconds since 1970. */
  receivedAtMs: Schema.Natural,
  startedAtMs: Schema.optionalKey(Schema.Natural),
  class: Schema.optionalKey(ClassName),
  settlement: Schema.optionalKey(Settlement)
})
export type StokerJobView = typeof StokerJobView.Type

/** Names the queue that further questions about the same job may go to. */
const from = { from: Schema.String }

export const StokerAnswer = Schema.Union([
  /** It is here and is being stopped: `job` follows when it has ended. */
  Schema.Struct({ answer: Schema.Literal("stopping"), ...from }),
  Schema.Struct({ answer: Schema.Literal("job"), ...from, job: StokerJobView }),
  Schema.Struct({ answer: Schema.Literal("jobs"), ...from, jobs: Schema.Array(StokerJobView) }),
  Schema.Struct({
    answer: Schema.Literal("output"),
    ...from,
    entries: Schema.Array(Schema.Union([
      Schema.Struct({ stream: StreamName, offset: Schema.Natural, base64: Schema.Uint8ArrayFromBase64 }),
      /** Produced and not kept: from (inclusive) to (exclusive). */
      Schema.Struct({ stream: StreamName, gapFrom: Schema.Natural, gapTo: Schema.Natural })
    ])),
    next: Schema.Natural,
    /** Behind the last byte there is now. Absent from older workers. */
    available: Schema.optionalKey(Schema.Natural),
    run: Schema.String,
    end: Schema.optionalKey(Schema.Struct({ summaries: Schema.Array(StreamSummary), complete: Schema.Boolean }))
  }),
  /** Nothing follows when `offset` and the bytes come to `artefact.bytes`. */
  Schema.Struct({
    answer: Schema.Literal("artefact"),
    ...from,
    artefact: Artefact,
    offset: Schema.Natural,
    base64: Schema.Uint8ArrayFromBase64
  }),
  /** It may be here, but could not be looked up; or the question is none. */
  Schema.Struct({ answer: Schema.Literal("trouble"), ...from, reason: Schema.String, remedy: Schema.String })
])
export type StokerAnswer = typeof StokerAnswer.Type

const QuestionText = Schema.fromJsonString(StokerQuestion)
const AnswerText = Schema.fromJsonString(Schema.toCodecJson(StokerAnswer))

export const decodeQuestion = Schema.decodeUnknownEffect(QuestionText)
export const encodeQuestion = Schema.encodeEffect(QuestionText)
export const decodeAnswer = Schema.decodeUnknownEffect(AnswerText)
export const encodeAnswer = Schema.encodeEffect(AnswerText)
