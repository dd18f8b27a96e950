/**
 * The requests of the MSTC cloud worker, both generations, mapped to the job model; MstcReply is the way back.
 *
 * `{image, jobName, inputBucketUrl, outputBucketUrl?, timeOut?}` (bd2d7fc, its README) and `{image, jobName, inputBucket,
 * outputBucket?, prefix?, timeOut?}` (its last version). Unknown fields are ignored, null is absent, and `timeOut` is in
 * minutes, 15 where it is absent or 0.
 */
import { Option, Result, Schema } from "effect"
import { BucketName, DnsLabel, ImageReference } from "../Container.ts"
import { FunctionName, IntakeName, JobId, Owner } from "../Ids.ts"
import type { ClassName } from "../Ids.ts"
import type { Job } from "../Job.ts"

/** The door's name, and the owner of jobs whose sender the broker does not vouch for. */
export const intake = IntakeName.make("mstc")
const anybody = Owner.make("mstc")

/** `urls`: told with the job's output; `buckets`: told that it is complete. */
export const MstcForm = Schema.Literals(["urls", "buckets"])
export type MstcForm = typeof MstcForm.Type

/** What the intake writes down with a job so that the emitter finds the way back. */
export const MstcReply = Schema.Struct({
  dialect: Schema.Literal("mstc"),
  form: MstcForm,
  /** `jobName` of the request. */
  name: Schema.String,
  /** A queue, by the default exchange. Absent: nobody waits. */
  replyTo: Schema.optionalKey(Schema.String),
  correlationId: Schema.optionalKey(Schema.String)
})
export type MstcReply = typeof MstcReply.Type

/** A message that is no request. */
export class MstcInvalid extends Schema.TaggedError<MstcInvalid>()("MstcInvalid", {
  reason: Schema.String,
  remedy: Schema.String
}) {
  override get message() {
    return `not an MSTC request: ${this.reason}. ${this.remedy}`
  }
}

/** A request as the transport brings it. */
export interface MstcMessage {
  readonly body: Uint8Array
  /** Stable over redeliveries: the sender's message id, else its correlation id, else one of ours. */
  readonly id: string
  readonly replyTo?: string | undefined
  readonly correlationId?: string | undefined
  readonly userId?: string | undefined
  readonly traceparent?: string | undefined
}

/** Where its jobs run. */
export interface MstcOptions {
  readonly class: ClassName
  /** Bytes. Default 1 MiB. */
  readonly maximumBytes?: number
}

/** A request as a job, and what is needed to answer it. */
export interface MstcRequest {
  readonly job: Job
  readonly reply: MstcReply
}

const defaultMinutes = 15
/** A week: longer than anybody waits, and within what limits take. */
const mostMinutes = 7 * 24 * 60

const absent = <S extends Schema.Top>(schema: S) => Schema.optionalKey(Schema.NullOr(schema))

const Url = Schema.String.check(
  Schema.isMaxLength(2048, { expected: "an address of at most 2048 characters" }),
  Schema.makeFilter((text: string) => URL.canParse(text), { expected: "an address such as http://minio:9000/bucket" })
)

const Wire = Schema.Struct({
  image: ImageReference,
  jobName: DnsLabel,
  inputBucketUrl: absent(Url),
  outputBucketUrl: absent(Url),
  inputBucket: absent(BucketName),
  outputBucket: absent(BucketName),
  prefix: absent(Schema.String.check(Schema.isMaxLength(512))),
  timeOut: absent(
    Schema.Int.check(
      Schema.isBetween({ minimum: 0, maximum: mostMinutes }, { expected: `minutes, 0 (which is 15) to ${mostMinutes}` })
    )
  )
})

const decodeWire = Schema.decodeUnknownResult(Wire, { errors: "all" })
const decodeId = Schema.decodeUnknownOption(JobId)
const decodeOwner = Schema.decodeUnknownOption(Owner)

const oneLine = (message: string) => message.replaceAll(/\s+/g, " ").slice(0, 300)

const invalid = (reason: string, remedy: string) => Result.fail(new MstcInvalid({ reason, remedy }))

/** Which generation it is of, with what a job of that generation finds in its environment. */
const placesOf = (wire: typeof Wire.Type) => {
  const { inputBucket, inputBucketUrl, prefix } = wire
  if (typeof inputBucket === "string" && typeof inputBucketUrl === "string") {
    return invalid("it has both inputBucket and inputBucketUrl", "Send one of them.")
  }
  if (typeof inputBucketUrl === "string") {
    const env = { INPUT_BUCKET_URL: inputBucketUrl, OUTPUT_BUCKET_URL: wire.outputBucketUrl ?? inputBucketUrl }
    return Result.succeed({ form: "urls" as const, env, buckets: undefined })
  }
  if (typeof inputBucket === "string") {
    const output = wire.outputBucket ?? inputBucket
    const hasPrefix = typeof prefix === "string" && prefix !== ""
    const env = { INPUT_BUCKET: inputBucket, OUTPUT_BUCKET: output, ...(hasPrefix ? { FILE_PREFIX: prefix } : {}) }
    return Result.succeed({
      form: "buckets" as const,
      env,
      buckets: { input: inputBucket, output, ...(hasPrefix ? { prefix } : {}) }
    })
  }
  return invalid("it says neither inputBucket nor inputBucketUrl", "Send the bucket that holds the job's files.")
}

/** A message as a job of `container`, or why it is none. */
export const decode = (message: MstcMessage, options: MstcOptions): Result.Result<MstcRequest, MstcInvalid> =>
  Result.gen(function*() {
    const { body } = message
    const maximum = options.maximumBytes ?? 1024 * 1024
    if (body.byteLength > maximum) {
      return yield* invalid(`it has ${body.byteLength} bytes, more than ${maximum}`, "Send the request's fields alone.")
    }
    const parsed = yield* Result.try({
      try: (): unknown => JSON.parse(new TextDecoder().decode(body)),
      catch: () => new MstcInvalid({ reason: "it is not JSON", remedy: "Send one JSON object." })
    })
    const wire = yield* Result.mapError(decodeWire(parsed), (error) =>
      new MstcInvalid({
        reason: oneLine(error.message),
        remedy: "image, jobName and inputBucket are needed; jobName as Kubernetes takes names."
      }))
    const { buckets, env, form } = yield* placesOf(wire)
    const id = Option.getOrUndefined(decodeId(message.id))
    if (id === undefined) return yield* invalid("its id is not usable", "Send a message id or correlation id.")
    const job: Job = {
      id,
      owner: Option.getOrElse(decodeOwner(message.userId), () => anybody),
      intake,
      function: FunctionName.make("container"),
      args: {
        image: wire.image,
        name: wire.jobName,
        env: { MSTC_JOB: "true", ...env },
        // Whoever names addresses goes there by itself.
        ...(buckets === undefined ? { store: true } : { buckets })
      },
      class: options.class,
      limits: { wallMs: (wire.timeOut || defaultMinutes) * 60_000 },
      ...(message.traceparent === undefined || message.traceparent.length > 128
        ? {}
        : { traceparent: message.traceparent })
    }
    const reply: MstcReply = {
      dialect: "mstc",
      form,
      name: wire.jobName,
      ...(message.replyTo === undefined || message.replyTo === "" ? {} : { replyTo: message.replyTo }),
      ...(message.correlationId === undefined ? {} : { correlationId: message.correlationId })
    }
    return { job, reply }
  })
