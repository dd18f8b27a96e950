/** Puts a delivery's message aside for a while: a copy goes to a wait queue at the broker, and comes back by itself. */
import { Effect } from "effect"
import { header, intake, type Submission } from "../../schemas/dialects/StokerJob.ts"
import type { Amqp, AmqpDelivery, AmqpMessage } from "../amqp/Amqp.ts"
import * as Durably from "../deadletters/Durably.ts"
import { senderHeaders } from "../deadletters/LetterHeaders.ts"
import { waitFor, waitName, waitTopology } from "./StokerTopology.ts"

/** What the copy says otherwise than the original. */
export interface Terms {
  readonly attempt: number
  readonly returns: number
  /** Milliseconds since 1970. */
  readonly notBeforeMs: number
}

export interface StokerWaiting {
  /**
   * Returns when the broker has the copy, however long that takes; never fails. The original is the caller's to ack
   * after that: should we die between, both are there, and the journal takes them for the one job they are.
   */
  readonly putAside: (
    delivery: AmqpDelivery,
    submission: Submission,
    terms: Terms,
    nowMs: number
  ) => Effect.Effect<void>
}

/** The message again, for the queue it was taken from. `user` is ours, which may speak for its owner. */
const copyOf = (
  { body, properties, queue }: AmqpDelivery,
  { isBare, job: { function: name, owner }, sentAtMs }: Submission,
  { attempt, notBeforeMs, returns }: Terms,
  user: string,
  nowMs: number
): AmqpMessage => {
  // A lifetime of its own would begin again in each queue; a delay is a point in time by now.
  const { expiration: _, headers, userId, ...kept } = properties
  const { [header.delay]: __, ...sent } = senderHeaders(headers)
  const wait = waitFor(notBeforeMs - nowMs)
  return {
    exchange: waitName(wait),
    routingKey: queue,
    body,
    properties: {
      ...kept,
      // The broker vouched for the owner; now it vouches for us, and we say whose it was.
      ...(userId === undefined ? {} : { userId: user }),
      headers: {
        ...sent,
        // It comes back without its routing key.
        ...(isBare ? { [header.function]: name } : {}),
        [header.notBefore]: notBeforeMs,
        [header.attempt]: attempt,
        ...(returns === 0 ? {} : { [header.returns]: returns }),
        ...(sentAtMs === undefined ? {} : { [header.sentAt]: sentAtMs }),
        ...(userId === undefined ? {} : { [header.owner]: owner })
      }
    }
  }
}

/** `user` is the broker user of our own connection, which workers trust to speak for owners. */
export const make = Effect.fnUntraced(function*(user: string): Effect.fn.Return<StokerWaiting, never, Amqp> {
  const put = yield* Durably.make()
  return {
    putAside: Effect.fn(`${intake}.putAside`)((delivery, submission, terms, nowMs) => {
      const wait = waitFor(terms.notBeforeMs - nowMs)
      const message = copyOf(delivery, submission, terms, user, nowMs)
      return put({ topology: waitTopology(wait), queue: waitName(wait), message })
    })
  }
})
