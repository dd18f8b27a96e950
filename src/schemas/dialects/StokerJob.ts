/**
 * Stoker's own AMQP messages as jobs, in two forms. The whole one: the body is JSON, `{id?, function, args, class?,
 * limits?, labels?}` with the field names of `Job`; fields nobody knows are refused. The bare one, of events: the body is
 * the arguments, a routing key or a header says which function they are for, and headers what else the whole form has
 * in its body. In both, headers say when and how often it is to be run.
 */
import { Option, Predicate, Result, Schema } from "effect"
import { ClassName, FunctionName, IntakeName, JobId, Owner } from "../Ids.ts"
import type { Job } from "../Job.ts"
import { LimitsRequest } from "../Limits.ts"
import { Outcome } from "../Outcome.ts"
import type { RetryPolicy } from "../Terms.ts"

/** The door's name in job keys, and the dialect's in replies. */
export const intake = IntakeName.make("stoker")

/** Header names. Numbers may come as AMQP integers or as decimal text. */
export const header = {
  /** The function's name: the body is its arguments. Written by workers into copies of what had a routing key. */
  function: "x-stoker-function",
  /** Of the bare form: the sandbox class's name. */
  class: "x-stoker-class",
  /** Of the bare form, each an AMQP table or JSON text. */
  limits: "x-stoker-limits",
  labels: "x-stoker-labels",
  /** The job's id where the body has none, for clients that make a new message-id with each try. */
  idempotencyKey: "x-stoker-idempotency-key",
  /** Milliseconds since 1970: not to be run before. */
  notBefore: "x-stoker-not-before",
  /** Milliseconds from the sending: not to be run before. */
  delay: "x-stoker-delay",
  /** Milliseconds since 1970: when it was sent. Else the `timestamp` property, in seconds, is taken. */
  sentAt: "x-stoker-sent-at",
  /** Milliseconds it may wait from its sending, or from its `not-before`, until a worker takes it. */
  ttl: "x-stoker-ttl",
  /** 1 for the first try. Written by workers. */
  attempt: "x-stoker-attempt",
  maxAttempts: "x-stoker-max-attempts",
  /** Milliseconds before the second try; doubled for each one after it. */
  retryBackoff: "x-stoker-retry-backoff",
  /** Outcomes that are tried again, separated by commas, or `never`. */
  retryOn: "x-stoker-retry-on",
  /** How often workers gave it back unrun. Written by workers. */
  returns: "x-stoker-returns",
  /** Whose it is, when a trusted user sends it for somebody else: workers and operators who send it again. */
  owner: "x-stoker-owner",
  traceparent: "traceparent"
} as const

export const Labels = Schema.Record(
  Schema.String.check(Schema.isBetweenLength(1, 64)),
  Schema.String.check(Schema.isMaxLength(256))
).check(Schema.isMaxProperties(32))
export type Labels = typeof Labels.Type

/** What the intake writes down with a job so that the emitter finds the way back. */
export const StokerReply = Schema.Struct({
  dialect: Schema.Literal("stoker"),
  /** A queue's name. */
  replyTo: Schema.optionalKey(Schema.String),
  correlationId: Schema.optionalKey(Schema.String),
  labels: Schema.optionalKey(Labels)
})
export type StokerReply = typeof StokerReply.Type

/** A message that is no job. `id` is there if it could be read and is a usable one. */
export class StokerInvalid extends Schema.TaggedError<StokerInvalid>()("StokerInvalid", {
  reason: Schema.String,
  remedy: Schema.String,
  id: Schema.optionalKey(JobId)
}) {
  override get message() {
    return `not a Stoker job: ${this.reason}. ${this.remedy}`
  }
}

/** Whose word is taken for who owns a job. */
export interface Trust {
  /** The owner of jobs whose sender the broker does not vouch for. */
  readonly defaultOwner: Owner
  /** Broker users who may name an owner: those of workers and operators. */
  readonly spokesmen: ReadonlyArray<string>
  /** Refuse messages without the user-id property, which the broker checks. */
  readonly requireUser: boolean
}

/** A message as the transport brings it. */
export interface StokerMessage {
  readonly body: Uint8Array
  readonly userId?: string | undefined
  readonly messageId?: string | undefined
  readonly replyTo?: string | undefined
  readonly correlationId?: string | undefined
  /** Seconds since 1970. */
  readonly timestamp?: number | undefined
  readonly headers?: Readonly<Record<string, unknown>> | undefined
  /** The routing key, where it says which function the body is the arguments of. */
  readonly functionKey?: string | undefined
}

/** A job and the terms it was sent on. */
export interface Submission {
  readonly job: Job
  readonly reply: StokerReply
  readonly sentAtMs?: number
  /** Milliseconds since 1970. */
  readonly notBeforeMs?: number
  /** Milliseconds since 1970. After it the job is not begun any more. */
  readonly expiresAtMs?: number
  /** 1 for the first try. */
  readonly attempt: number
  readonly returns: number
  readonly retry: RetryPolicy
  /** It came in the bare form. */
  readonly isBare: boolean
}

export interface DecodeOptions {
  readonly trust: Trust
  readonly retry: RetryPolicy
  /** Bytes. */
  readonly maximumBytes: number
  /** Milliseconds since 1970. */
  readonly nowMs: number
}

const Body = Schema.Struct({
  id: Schema.optionalKey(Schema.String),
  function: FunctionName,
  args: Schema.Json,
  class: Schema.optionalKey(ClassName),
  limits: Schema.optionalKey(LimitsRequest),
  labels: Schema.optionalKey(Labels)
})
const decodeBody = Schema.decodeUnknownResult(Body, { errors: "all", onExcessProperty: "error" })
const decodeId = Schema.decodeUnknownResult(JobId)
const decodeOwner = Schema.decodeUnknownOption(Owner)

type Decoded<A> = Result.Result<A, StokerInvalid>

const invalid = (reason: string, remedy: string, id?: JobId) =>
  Result.fail(new StokerInvalid({ reason, remedy, ...(id === undefined ? {} : { id }) }))

const oneLine = (message: string) => message.replaceAll(/\s+/g, " ").slice(0, 300)

const year = 366 * 24 * 3_600_000
/** Milliseconds since 1970 stay exact and in this millennium. */
const anyTime = 32_503_680_000_000

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** Whose job a message is. */
export const ownerOf = ({ headers, userId }: StokerMessage, trust: Trust): Decoded<Owner> => {
  if (userId === undefined) {
    return trust.requireUser
      ? invalid("it does not say who sent it", "Set the user-id property to the connection's user.")
      : Result.succeed(trust.defaultOwner)
  }
  const named = trust.spokesmen.includes(userId) ? decodeOwner(headers?.[header.owner]) : Option.none()
  if (Option.isSome(named)) return Result.succeed(named.value)
  const user = decodeOwner(userId)
  return Option.isSome(user)
    ? Result.succeed(user.value)
    : invalid(
      "its user's name cannot be an owner",
      "Send it as a user whose name has letters, digits, '.', '_', '@', '-'."
    )
}

const whole = (
  { headers }: StokerMessage,
  name: string,
  minimum: number,
  maximum: number
): Decoded<number | undefined> => {
  const value = headers?.[name]
  if (value === undefined || value === null) return Result.succeed(undefined)
  const text = String(value)
  const number = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN
  return number >= minimum && number <= maximum
    ? Result.succeed(number)
    : invalid(`the header ${name} is wrong`, `Send a whole number from ${minimum} to ${maximum}.`)
}

const isOutcome = (name: string): name is Outcome["_tag"] => Object.hasOwn(Outcome.cases, name)

const retryOf = (message: StokerMessage, usual: RetryPolicy): Decoded<RetryPolicy> =>
  Result.gen(function*() {
    const maxAttempts = (yield* whole(message, header.maxAttempts, 1, 100)) ?? usual.maxAttempts
    const backoffMs = (yield* whole(message, header.retryBackoff, 1, 3_600_000)) ?? usual.backoffMs
    const wanted = message.headers?.[header.retryOn]
    if (wanted === undefined) return { ...usual, maxAttempts, backoffMs }
    const names = wanted === "never" ? [] : String(wanted).split(",").map((name) => name.trim())
    const on = names.filter(isOutcome)
    return on.length === names.length
      ? { on, maxAttempts, backoffMs }
      : yield* invalid(
        `the header ${header.retryOn} names no outcome`,
        `Send never, or some of: ${Object.keys(Outcome.cases).join(", ")}.`
      )
  })

/** Send time, earliest and latest time to begin. */
const timesOf = (
  message: StokerMessage,
  nowMs: number
): Decoded<Pick<Submission, "sentAtMs" | "notBeforeMs" | "expiresAtMs">> =>
  Result.gen(function*() {
    const stamp = message.timestamp === undefined ? undefined : message.timestamp * 1000
    const sentAtMs = (yield* whole(message, header.sentAt, 0, anyTime)) ?? stamp
    const delay = yield* whole(message, header.delay, 0, year)
    const notBefore = yield* whole(message, header.notBefore, 0, anyTime)
    const ttl = yield* whole(message, header.ttl, 1, year)
    const notBeforeMs = notBefore ?? (delay === undefined ? undefined : (sentAtMs ?? nowMs) + delay)
    if (notBeforeMs !== undefined && notBeforeMs > nowMs + year) {
      return yield* invalid(
        "it is to be run in more than a year",
        `Correct ${header.notBefore} (milliseconds since 1970).`
      )
    }
    const from = sentAtMs === undefined ? notBeforeMs : Math.max(sentAtMs, notBeforeMs ?? 0)
    if (ttl !== undefined && from === undefined) {
      return yield* invalid(
        `it has ${header.ttl} and does not say when it was sent`,
        `Set ${header.sentAt} (milliseconds since 1970) or the timestamp property.`
      )
    }
    return {
      ...(sentAtMs === undefined ? {} : { sentAtMs }),
      ...(notBeforeMs === undefined ? {} : { notBeforeMs }),
      ...(ttl === undefined || from === undefined ? {} : { expiresAtMs: from + ttl })
    }
  })

const idOf = ({ headers, messageId }: StokerMessage, inBody: unknown): Decoded<JobId> => {
  const key = headers?.[header.idempotencyKey]
  if (inBody !== undefined && key !== undefined && key !== inBody) {
    return invalid("its id and its idempotency key differ", "The id is the idempotency key: send one of the two.")
  }
  const id = inBody ?? key ?? messageId
  if (id === undefined) return invalid("it has no id", "Send id in the body, or the message-id property.")
  return Result.mapError(
    decodeId(id),
    (error) =>
      new StokerInvalid({ reason: `its id is not usable: ${oneLine(error.message)}`, remedy: "Give it another id." })
  )
}

/** Whether a reply may go to a queue of that name: to one of ours it would come back as a job or a question. */
export const isReplyQueue = (name: string): boolean =>
  name !== "" && (!name.startsWith("stoker.") || name.startsWith("stoker.client."))

/** Where its events go, or why not there. */
const replyOf = ({ correlationId, replyTo }: StokerMessage, labels: Labels | undefined): Decoded<StokerReply> =>
  replyTo !== undefined && replyTo !== "" && !isReplyQueue(replyTo)
    ? invalid("its reply-to is one of Stoker's own queues", "Send a queue of your own as reply-to.")
    : Result.succeed({
      dialect: "stoker",
      ...(replyTo === undefined || replyTo === "" ? {} : { replyTo }),
      ...(correlationId === undefined ? {} : { correlationId }),
      ...(labels === undefined ? {} : { labels })
    })

/** Whether the body is the arguments alone. */
export const isBare = ({ functionKey, headers }: StokerMessage): boolean =>
  functionKey !== undefined || Predicate.isNotNullish(headers?.[header.function])

/** The function's name, as the routing key or the header has it. */
const functionNameOf = ({ functionKey, headers }: StokerMessage): Decoded<unknown> => {
  if (functionKey === undefined) return Result.succeed(headers?.[header.function])
  const [, name] = /^function\.([^.]+)(?:\.(?:high|normal|low))?$/.exec(functionKey) ?? []
  return name === undefined
    ? invalid(
      `its routing key ${JSON.stringify(functionKey.slice(0, 100))} names no function`,
      "Publish it under function.<name>, or function.<name>.high or .low for another priority."
    )
    : Result.succeed(name)
}

/** A header that is a table: as such, or as JSON. */
const tableOf = ({ headers }: StokerMessage, name: string): Decoded<object> => {
  const value = headers?.[name]
  if (Predicate.isNullish(value)) return Result.succeed({})
  return Result.try({
    try: () => ({ [name.slice("x-stoker-".length)]: typeof value === "string" ? JSON.parse(value) as unknown : value }),
    catch: () =>
      new StokerInvalid({ reason: `the header ${name} is wrong`, remedy: "Send an AMQP table, or an object as JSON." })
  })
}

/** The bare form's message as the body of the whole one. */
const wholeOf = (message: StokerMessage, args: unknown): Decoded<unknown> =>
  Result.gen(function*() {
    const className = message.headers?.[header.class]
    return {
      function: yield* functionNameOf(message),
      args,
      ...(Predicate.isNullish(className) ? {} : { class: className }),
      ...(yield* tableOf(message, header.limits)),
      ...(yield* tableOf(message, header.labels))
    }
  })

/** The body's value. An event may have none: then there are no arguments. */
const parse = ({ body }: StokerMessage, bare: boolean): Decoded<unknown> =>
  Result.try({
    try: (): unknown =>
      bare && body.byteLength === 0 ? {} : JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body)),
    catch: () => new StokerInvalid({ reason: "it is not JSON in UTF-8", remedy: "Send one JSON object." })
  })

const traceOf = ({ headers }: StokerMessage) => {
  const value = headers?.[header.traceparent]
  return typeof value === "string" && value.length <= 128 ? { traceparent: value } : {}
}

const withId = (id: JobId) => <A>(decoded: Decoded<A>): Decoded<A> =>
  Result.mapError(decoded, ({ reason, remedy }) => new StokerInvalid({ reason, remedy, id }))

/** A message as a job. Larger than the maximum it is refused unparsed. */
export const decode = (message: StokerMessage, options: DecodeOptions): Decoded<Submission> =>
  Result.gen(function*() {
    const owner = yield* ownerOf(message, options.trust)
    const { byteLength } = message.body
    if (byteLength > options.maximumBytes) {
      return yield* invalid(
        `it has ${byteLength} bytes, more than ${options.maximumBytes}`,
        "Send less, or raise the worker's maximum message size.",
        Option.getOrUndefined(Result.getSuccess(decodeId(message.messageId)))
      )
    }
    const bare = isBare(message)
    // An event's id is known whatever its body is.
    const known = bare ? yield* idOf(message, undefined) : undefined
    const parsed = yield* (known === undefined ? parse(message, bare) : withId(known)(parse(message, bare)))
    if (!bare && !isRecord(parsed)) return yield* invalid("it is not a JSON object", "Send one JSON object.")
    const id = known ?? (yield* idOf(message, isRecord(parsed) ? parsed["id"] : undefined))
    const request = bare ? yield* withId(id)(wholeOf(message, parsed)) : parsed
    const { labels, limits, ...asked } = yield* withId(id)(Result.mapError(
      decodeBody(request),
      (error) => new StokerInvalid({ reason: `a field is wrong: ${oneLine(error.message)}`, remedy: "Correct it." })
    ))
    const reply = yield* withId(id)(replyOf(message, labels))
    const times = yield* withId(id)(timesOf(message, options.nowMs))
    const retry = yield* withId(id)(retryOf(message, options.retry))
    const attempt = (yield* withId(id)(whole(message, header.attempt, 1, 1000))) ?? 1
    const returns = (yield* withId(id)(whole(message, header.returns, 0, 1_000_000))) ?? 0
    const job: Job = { ...asked, id, owner, intake, limits: limits ?? {}, ...traceOf(message) }
    return { job, reply, ...times, attempt, returns, retry, isBare: bare }
  })
