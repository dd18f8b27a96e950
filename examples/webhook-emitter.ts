/**
 * An emitter of one's own: posts how a job ended, with the beginning of what it printed, to the address its sender gave.
 * The message is written down together with the outcome, so it is sent even if the program dies in between; it has an id
 * by which the receiver knows repeats.
 */
import { Effect, Schedule, Schema } from "effect"
import { HttpBody, HttpClient } from "effect/http"
import { type Emitter, Log, Message, Outcome } from "stoker"

const NAME = "webhook"

/** As `folder-intake.ts` writes it down. Jobs of other doors have other replies, or none, and are none of ours. */
const Reply = Schema.Struct({ webhook: Schema.String })
const Post = Schema.Struct({ webhook: Schema.String, body: Schema.Json })
const isReply = Schema.is(Reply)

/** Bytes of output that go along. */
const MOST = 10_000

/** Needs an HTTP client, and the worker's logs. */
export const webhookEmitter = Effect.gen(function*() {
  const client = HttpClient.filterStatusOk(yield* HttpClient.HttpClient)
  const log = yield* Log

  const emitter: Emitter = {
    name: NAME,
    render: Effect.fnUntraced(function*({ event, reply }) {
      if (event._tag !== "Ended" || !isReply(reply)) return []
      const stdout = yield* log.text(event.key, "stdout", MOST).pipe(Effect.orElseSucceed(() => new Uint8Array()))
      const body = {
        id: event.key.id,
        outcome: event.outcome._tag,
        description: Outcome.describe(event.outcome),
        stdout: new TextDecoder().decode(stdout)
      }
      return [{ id: Message.messageId(event, 0), emitter: NAME, content: { webhook: reply.webhook, body } }]
    }),
    send: (message) =>
      Effect.succeed(
        Schema.decodeUnknownEffect(Post)(message.content).pipe(
          Effect.flatMap(({ body, webhook }) =>
            client.post(webhook, { body: HttpBody.jsonUnsafe(body), headers: { "message-id": message.id } }).pipe(
              Effect.timeout("10 seconds"),
              Effect.retry(Schedule.exponential("200 millis").pipe(Schedule.upTo({ times: 8 })))
            )
          ),
          Effect.scoped,
          Effect.ignore({ log: "Warn", message: `message ${message.id} was given up` })
        )
      )
  }
  return emitter
})
