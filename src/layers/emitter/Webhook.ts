/**
 * Posts how a job of the control plane ended to the address its caller gave, until it is answered with 2xx. The job does not
 * wait for that; the message is written down with the outcome, so that another worker goes on when this one dies.
 */
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import {
  type Duration,
  Effect,
  type Layer,
  Metric,
  Option,
  Redacted,
  Result,
  Schedule,
  Schema,
  Semaphore
} from "effect"
import { HttpClient, HttpClientRequest } from "effect/http"
import { ApiReply } from "../../schemas/dialects/Api.ts"
import { keyOf } from "../../schemas/Job.ts"
import { broughtBack, type JobEvent } from "../../schemas/JobEvent.ts"
import { JobView } from "../../schemas/JobView.ts"
import { type Message, messageId } from "../../schemas/Message.ts"
import { viewOf } from "../api/Views.ts"
import { type JobRecord, Journal } from "../journal/Journal.ts"
import { nowMs } from "../Now.ts"
import * as AmqpSend from "./AmqpSend.ts"
import type { Emitter, Telling } from "./Emitter.ts"
import { signed } from "./WebhookSignature.ts"
import { allowing, isPrefix } from "./WebhookTargets.ts"

export const emitterName = "webhook"

export interface WebhookOptions {
  /** Beginnings of the addresses that may be posted to. */
  readonly allow: ReadonlyArray<string>
  readonly secret: Redacted.Redacted<string>
  /** How long one message is tried. Absent: an hour. */
  readonly giveUpAfter?: Duration.Input
  /** Of one try. Absent: 10 s. */
  readonly timeout?: Duration.Input
  /** Before the second try; doubled for each one after it, at most five minutes. Absent: 1 s. */
  readonly backoff?: Duration.Input
  /** Below one prefix: so many messages are in hand at once, those beyond are given up. Absent: 10,000. */
  readonly maximumInHand?: number
}

/** Requests at once below one prefix: a receiver that hangs holds up nobody else's. */
const AT_ONCE = 8
const LONGEST_BACKOFF = "5 minutes"

const decodeReply = Schema.decodeUnknownOption(ApiReply)
const encodeView = Schema.encodeSync(JobView)

/** What is kept of a message until it is sent. */
const Post = Schema.Struct({ url: Schema.String, body: Schema.String })
const decodePost = Schema.decodeUnknownOption(Post)

/** It may go better another time; or it never will. */
type Failed = { readonly isFinal: boolean; readonly why: string }

/** 2xx is taken; a redirect is not followed, and like most of 4xx it will not change. */
const verdict = (status: number): Result.Result<void, Failed> => {
  if (status >= 200 && status < 300) return Result.void
  const isFinal = status < 500 && status !== 408 && status !== 429
  return Result.fail({ isFinal, why: `it answered with ${status}` })
}

/**
 * The ended job, as its record will show it, but for its arguments, which its sender has and which may be large, and for when
 * it started, which is known only once it is written down.
 */
const ended = (
  event: Extract<JobEvent, { readonly _tag: "Ended" }>,
  { job, reply }: Telling,
  record: JobRecord | undefined
) =>
  viewOf({
    request: { job, reply, hash: "" },
    receivedAtMs: record?.receivedAtMs ?? event.atMs,
    ...(record?.instance === undefined ? {} : { instance: record.instance }),
    state: "ended",
    attempt: event.attempt,
    settlement: {
      outcome: event.outcome,
      usage: event.usage,
      output: event.output,
      ...broughtBack(event),
      attempt: event.attempt,
      endedAtMs: event.atMs
    }
  }, { args: false })

/** The emitter. Needs the journal for when a job came. */
export const make = Effect.fnUntraced(function*(options: WebhookOptions) {
  const { allow, giveUpAfter = "1 hour", maximumInHand = 10_000, secret } = options
  const journal = yield* Journal
  const client = HttpClient.withScope(yield* HttpClient.HttpClient)
  const counters = AmqpSend.countersOf(emitterName)
  yield* AmqpSend.begin(counters)
  for (const prefix of allow) {
    if (!isPrefix(prefix)) yield* Effect.logError(`nothing can be posted below ${prefix}: it is no plain address`)
  }
  const lanes = new Map(allow.map((prefix) => [prefix, { permits: Semaphore.makeUnsafe(AT_ONCE), inHand: 0 }]))

  const patience = Schedule.min([
    Schedule.exponential(options.backoff ?? "1 second"),
    Schedule.spaced(LONGEST_BACKOFF)
  ]).pipe(Schedule.jittered, Schedule.upTo({ duration: giveUpAfter }))

  const once = Effect.fnUntraced(function*(id: string, { body, url }: typeof Post.Type) {
    const seconds = Math.floor((yield* nowMs) / 1000)
    yield* Metric.update(counters.sent, 1)
    const request = HttpClientRequest.post(url, { headers: signed(Redacted.value(secret), id, seconds, body) }).pipe(
      HttpClientRequest.bodyText(body, "application/json")
    )
    const { status } = yield* Effect.scoped(client.execute(request)).pipe(
      Effect.timeout(options.timeout ?? "10 seconds"),
      // Our traces are nobody else's.
      Effect.provideService(HttpClient.TracerPropagationEnabled, false),
      Effect.mapError(({ message }): Failed => ({ isFinal: false, why: message }))
    )
    return yield* Effect.fromResult(verdict(status))
  })

  const post = Effect.fnUntraced(function*(message: Message) {
    const content = Option.getOrUndefined(decodePost(message.content))
    // Only the prefix is ever logged: what follows it may be a secret of the receiver's.
    const prefix = content === undefined ? undefined : allowing(allow, content.url)
    const lane = lanes.get(prefix ?? "")
    const give = (why: string) => AmqpSend.givenUp(counters, message, why)
    if (content === undefined) return yield* give("its content is not one of ours; was it written by another version?")
    if (lane === undefined) return yield* give("the operator does not allow its address any more")
    if (lane.inHand >= maximumInHand) return yield* give(`${maximumInHand} others wait for the same receiver`)
    lane.inHand += 1
    yield* lane.permits.withPermits(1)(once(message.id, content)).pipe(
      Effect.retry({ schedule: patience, while: ({ isFinal }: Failed) => !isFinal }),
      Effect.andThen(Metric.update(counters.confirmed, 1)),
      Effect.catch(({ why }) => give(`${prefix}: ${why}`)),
      Effect.ensuring(Effect.sync(() => lane.inHand -= 1))
    )
  })

  const emitter: Emitter = {
    name: emitterName,
    detached: true,
    render: Effect.fnUntraced(function*(telling) {
      const { event } = telling
      if (event._tag !== "Ended") return []
      const url = Option.getOrUndefined(decodeReply(telling.reply))?.webhook
      if (url === undefined) return []
      const record = yield* Effect.orElseSucceed(journal.get(keyOf(telling.job)), () => undefined)
      const body = JSON.stringify(encodeView(ended(event, telling, record)))
      return [{ id: messageId(event, 0), emitter: emitterName, content: { url, body } }]
    }),
    send: (message) => Effect.succeed(post(message))
  }
  return emitter
})

/**
 * A client of its own, of Node's: it follows no redirects. A connection ends with its request, because nobody reads what a
 * receiver goes on to say behind its status.
 */
export const layerClient: Layer.Layer<HttpClient.HttpClient> = NodeHttpClient.layerNodeHttpOptions({
  keepAlive: false,
  maxSockets: AT_ONCE
})
