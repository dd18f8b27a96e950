/** Keeps AMQP messages that no job can be made of, each with the reason, where an operator finds them. */
import { DateTime, Effect, Metric } from "effect"
import { header } from "../../schemas/dialects/StokerJob.ts"
import type { Amqp, AmqpDelivery, AmqpMessage, Topology } from "../amqp/Amqp.ts"
import { metrics } from "../telemetry/Metrics.ts"
import * as Durably from "./Durably.ts"
import { letterHeader, senderHeaders } from "./LetterHeaders.ts"

export const defaultDeadQueue = "stoker.dead"

/**
 * Quorum, and no end to how often a letter may be looked at: RabbitMQ 4 drops what was handed out 20 times unless a
 * queue says otherwise, and -1, its word for never, is at once for RabbitMQ 3.10.
 */
export const deadTopology = (queue: string): Topology => ({
  queues: [{ name: queue, durable: true, arguments: { "x-queue-type": "quorum", "x-delivery-limit": 1_000_000_000 } }]
})

/** How much of a message is kept that is too large for the broker to take again. Bytes. */
const keptOfTooLarge = 1024 * 1024

/** Why a message is kept, and for whom. */
export interface Why {
  readonly reason: string
  readonly remedy: string
  /** Whose it is, as the broker has vouched to us, and our own user, whom it vouches for now. */
  readonly vouched?: { readonly owner: string; readonly user: string } | undefined
}

export interface Keeping {
  /**
   * Returns when the broker has the copy, however long that takes; never fails. The original is the caller's to ack
   * after that. The sender's headers stay, but for the one that would make it speak for another; `LetterHeaders` says
   * which are ours.
   */
  readonly keep: (delivery: AmqpDelivery, why: Why) => Effect.Effect<void>
}

const cut = (letter: AmqpMessage): AmqpMessage => ({
  ...letter,
  body: letter.body.subarray(0, keptOfTooLarge),
  properties: {
    ...letter.properties,
    headers: { ...letter.properties?.headers, [letterHeader.bytes]: letter.body.byteLength }
  }
})

export const make = Effect.fnUntraced(
  function*(queue: string = defaultDeadQueue): Effect.fn.Return<Keeping, never, Amqp> {
    const put = yield* Durably.make((letter, { reason }) => reason === "TooLarge" ? cut(letter) : undefined)
    const topology = deadTopology(queue)

    const keep = Effect.fn("DeadLetters.keep")(function*(
      delivery: AmqpDelivery,
      { reason, remedy, vouched }: Why
    ) {
      // A lifetime of its own would end it here as well.
      const { expiration: _, headers, userId, ...properties } = delivery.properties
      const { [header.owner]: __, ...sent } = senderHeaders(headers)
      const message: AmqpMessage = {
        exchange: "",
        routingKey: queue,
        body: delivery.body,
        properties: {
          ...properties,
          ...(vouched === undefined ? {} : { userId: vouched.user }),
          headers: {
            ...sent,
            ...(vouched === undefined ? {} : { [header.owner]: vouched.owner }),
            [letterHeader.reason]: reason.slice(0, 500),
            [letterHeader.remedy]: remedy.slice(0, 500),
            [letterHeader.queue]: delivery.queue,
            [letterHeader.exchange]: delivery.exchange,
            [letterHeader.routingKey]: delivery.routingKey,
            [letterHeader.time]: DateTime.formatIso(yield* DateTime.now),
            // For people: the property of that name must be our own user's.
            ...(userId === undefined ? {} : { [letterHeader.userId]: userId })
          }
        }
      }
      yield* put({ topology, queue, message })
      yield* Metric.update(metrics.deadLetters.series({}), 1)
    })

    return { keep }
  }
)
