/** Keeps AMQP messages that no job can be made of, each with the reason, where an operator finds them. */
import { DateTime, Duration, Effect, Ref, Schedule, Schema } from "effect"
import { Amqp, type AmqpDelivery, type AmqpMessage, type Topology } from "../amqp/Amqp.ts"

export const defaultDeadQueue = "stoker.dead"

/** Quorum where the broker has it; no further argument, for RabbitMQ 4 refuses many. */
const topologyOf = (queue: string): Topology => ({
  queues: [{ name: queue, durable: true, arguments: { "x-queue-type": "quorum" } }]
})

/** How much of a message is kept that is too large for the broker to take again. Bytes. */
const keptOfTooLarge = 1024 * 1024

const patience = Schedule.exponential("200 millis").pipe(
  Schedule.modifyDelay(({ duration }) => Effect.succeed(Duration.min(duration, Duration.seconds(10)))),
  Schedule.jittered
)

/** The broker took a message for the dead queue and had no such queue. Tried again, so it leaves this file only as log. */
class DeadQueueGone extends Schema.TaggedError<DeadQueueGone>()("DeadQueueGone", { queue: Schema.String }) {
  override get message() {
    return `the queue ${this.queue} was deleted; it is declared again`
  }
}

export interface DeadLetters {
  /**
   * Returns when the broker has the copy, however long that takes; never fails. The original is the caller's to ack
   * after that. Headers: `x-stoker-reason`, `-remedy`, `-queue`, `-exchange`, `-routing-key`, `-time` (ISO 8601),
   * `-user-id` if it was there, and `-bytes` if the body had to be cut.
   */
  readonly keep: (
    delivery: AmqpDelivery,
    why: { readonly reason: string; readonly remedy: string }
  ) => Effect.Effect<void>
}

export const make = Effect.fnUntraced(function*(queue = defaultDeadQueue): Effect.fn.Return<DeadLetters, never, Amqp> {
  const amqp = yield* Amqp
  const declared = yield* Ref.make(false)

  const publish = Effect.fnUntraced(function*(message: AmqpMessage) {
    if (!(yield* Ref.get(declared))) yield* amqp.ensure(topologyOf(queue))
    yield* Ref.set(declared, true)
    const { routed } = yield* amqp.publish(message)
    if (routed) return
    // Confirmed, and kept by nobody: the queue was deleted. The next try declares it again.
    yield* Ref.set(declared, false)
    return yield* new DeadQueueGone({ queue })
  })

  const keep = Effect.fn("DeadLetters.keep")(function*(
    delivery: AmqpDelivery,
    { reason, remedy }: { readonly reason: string; readonly remedy: string }
  ) {
    const { contentType, correlationId, messageId, replyTo, userId } = delivery.properties
    const letter: AmqpMessage = {
      exchange: "",
      routingKey: queue,
      body: delivery.body,
      properties: {
        ...(contentType === undefined ? {} : { contentType }),
        ...(correlationId === undefined ? {} : { correlationId }),
        ...(messageId === undefined ? {} : { messageId }),
        ...(replyTo === undefined ? {} : { replyTo }),
        headers: {
          "x-stoker-reason": reason.slice(0, 500),
          "x-stoker-remedy": remedy.slice(0, 500),
          "x-stoker-queue": delivery.queue,
          "x-stoker-exchange": delivery.exchange,
          "x-stoker-routing-key": delivery.routingKey,
          "x-stoker-time": DateTime.formatIso(yield* DateTime.now),
          // As a header: the property of that name must be our own user's.
          ...(userId === undefined ? {} : { "x-stoker-user-id": userId })
        }
      }
    }
    const cut: AmqpMessage = {
      ...letter,
      body: letter.body.subarray(0, keptOfTooLarge),
      properties: {
        ...letter.properties,
        headers: { ...letter.properties?.headers, "x-stoker-bytes": delivery.body.byteLength }
      }
    }
    yield* publish(letter).pipe(
      Effect.catchIf((error) => error._tag === "AmqpError" && error.reason === "TooLarge", () => publish(cut)),
      Effect.tapError((error) => Effect.logWarning(`a rejected message is not kept yet: ${error.message}`)),
      Effect.retry(patience),
      Effect.orDie
    )
  })

  return { keep }
})
