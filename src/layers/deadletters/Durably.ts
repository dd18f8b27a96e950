/** Publishes into queues of our own until one has the message, declaring them again if somebody deleted them. */
import { Duration, Effect, Schedule, Schema } from "effect"
import { Amqp, type AmqpError, type AmqpMessage, type Topology } from "../amqp/Amqp.ts"

const patience = Schedule.exponential("200 millis").pipe(
  Schedule.modifyDelay(({ duration }) => Effect.succeed(Duration.min(duration, Duration.seconds(10)))),
  Schedule.jittered
)

/** The broker took a message and had no queue for it. Tried again, so it leaves this file only as log. */
class QueueGone extends Schema.TaggedError<QueueGone>()("QueueGone", { queue: Schema.String }) {
  override get message() {
    return `the queue ${this.queue} was deleted; it is declared again`
  }
}

export interface DurableMessage {
  /** What leads the message to its queue. Declared once, and again when the message finds no queue. */
  readonly topology: Topology
  /** The queue's name. */
  readonly queue: string
  readonly message: AmqpMessage
}

/**
 * Gives an effect that returns once a queue has the message, however long that takes. `refused` says what becomes of
 * one the transport will never take: another message instead, or nothing, and it is tried again.
 */
export const make = Effect.fnUntraced(function*(
  refused: (message: AmqpMessage, error: AmqpError) => AmqpMessage | undefined = () => undefined
): Effect.fn.Return<(durable: DurableMessage) => Effect.Effect<void>, never, Amqp> {
  const amqp = yield* Amqp
  const declared = new Set<string>()

  const publish = Effect.fnUntraced(function*({ message, queue, topology }: DurableMessage) {
    if (!declared.has(queue)) yield* amqp.ensure(topology)
    declared.add(queue)
    const { routed } = yield* amqp.publish(message).pipe(
      Effect.catch((error) => {
        const other = refused(message, error)
        return other === undefined ? Effect.fail(error) : amqp.publish(other)
      })
    )
    if (routed) return
    // Confirmed, and kept by nobody. The next try declares it again.
    declared.delete(queue)
    return yield* new QueueGone({ queue })
  })

  return (durable) =>
    publish(durable).pipe(
      Effect.tapError((error) =>
        Effect.logWarning(`a message for ${durable.queue} is not there yet: ${error.message}`)
      ),
      Effect.tapError((error) => Effect.sync(() => error._tag === "AmqpError" && declared.delete(durable.queue))),
      Effect.retry(patience),
      Effect.orDie
    )
})
