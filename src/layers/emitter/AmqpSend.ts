/** Sends an emitter's messages over AMQP until they are confirmed. What nobody takes is counted, never an error. */
import { Effect, Metric, Schedule } from "effect"
import type { Message } from "../../schemas/Message.ts"
import type { Amqp, AmqpError, AmqpMessage } from "../amqp/Amqp.ts"
import { metrics } from "../telemetry/Metrics.ts"

export interface SendOptions {
  readonly amqp: Amqp["Service"]
  readonly counters: Counters
}

/** What an emitter counts. */
export interface Counters {
  readonly sent: Metric.Counter<number>
  readonly confirmed: Metric.Counter<number>
  /** Confirmed, and no queue was there for it. */
  readonly unroutable: Metric.Counter<number>
  /** Given up: the broker would not take it. */
  readonly undeliverable: Metric.Counter<number>
}

export const countersOf = (emitter: string): Counters => ({
  sent: metrics.messagesSent.series({ emitter }),
  confirmed: metrics.messagesConfirmed.series({ emitter }),
  unroutable: metrics.messagesUnroutable.series({ emitter }),
  undeliverable: metrics.messagesUndeliverable.series({ emitter })
})

/** One message, and what must be declared for it. */
export interface Sending {
  readonly message: Message
  readonly outgoing: AmqpMessage
  /** Never fails: what is missing then shows itself in the publishing. */
  readonly prepare: Effect.Effect<void>
  /** Somebody may have deleted it since: the next `prepare` declares it again. */
  readonly forget: Effect.Effect<void>
}

/** How an emitter goes on with declaring what the broker does not take at once: 5 tries within some 1.5 s. */
export const patience = Schedule.exponential("100 millis").pipe(Schedule.jittered, Schedule.upTo({ times: 4 }))

/** AMQP's short strings end at 255 bytes; a longer id is told apart by its tail, which has attempt and number. */
export const shortId = (id: string): string => (id.length <= 255 ? id : id.slice(id.length - 255))

/** The transport ends before its confirm: the message is still owed, so its wait must not end as if it were told. */
const unlessClosed = <A>(sent: Effect.Effect<A, AmqpError>) =>
  Effect.catchIf(sent, (error) => error.reason === "Closed", () => Effect.never)

/** It can never be sent: said and counted, and its wait is over. */
export const givenUp = ({ undeliverable }: Counters, { id }: Message, why: string): Effect.Effect<void> =>
  Effect.andThen(Metric.update(undeliverable, 1), Effect.logError(`message ${id} given up: ${why}`))

/** Shows what was never counted as 0: an alert must have seen a series before its first rise. */
export const begin = (counters: Counters): Effect.Effect<void> =>
  Effect.forEach(Object.values(counters), (counter: Metric.Counter<number>) => Metric.update(counter, 0), {
    discard: true
  })

/** As `Emitter.send`: puts it in the order now, and gives the wait for its confirm. */
export const make =
  ({ amqp, counters }: SendOptions) =>
  ({ forget, message, outgoing, prepare }: Sending): Effect.Effect<Effect.Effect<void>> => {
    const again = forget.pipe(
      Effect.andThen(prepare),
      Effect.andThen(Metric.update(counters.sent, 1)),
      Effect.andThen(amqp.publish(outgoing)),
      unlessClosed
    )
    return prepare.pipe(
      Effect.andThen(Metric.update(counters.sent, 1)),
      Effect.andThen(amqp.enqueue(outgoing)),
      Effect.map((confirmed) =>
        confirmed.pipe(
          unlessClosed,
          Effect.catch(() => again),
          Effect.tap(() => Metric.update(counters.confirmed, 1)),
          Effect.flatMap(({ routed }) => routed ? Effect.void : Metric.update(counters.unroutable, 1)),
          Effect.catch((error) => givenUp(counters, message, error.message))
        )
      )
    )
  }
