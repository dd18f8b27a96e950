/** What becomes of a message that is not run: it is kept as a dead letter, and its sender is told. */
import { Clock, Effect, Result } from "effect"
import type { StokerEvent } from "../../schemas/dialects/StokerEvent.ts"
import {
  intake,
  isReplyQueue,
  ownerOf,
  type StokerMessage,
  type StokerReply,
  type Trust
} from "../../schemas/dialects/StokerJob.ts"
import { type JobId, keyText } from "../../schemas/Ids.ts"
import { Outcome } from "../../schemas/Outcome.ts"
import { noUsage } from "../../schemas/Usage.ts"
import type { Amqp, AmqpDelivery } from "../amqp/Amqp.ts"
import * as Keeping from "../deadletters/Keeping.ts"
import type { Emitter } from "../emitter/Emitter.ts"
import { messagesOf } from "../emitter/StokerMessages.ts"

/** Why it is not run, for its sender and for the dead letter. */
export interface Refusal {
  readonly reason: string
  readonly remedy: string
  readonly id?: JobId
}

export interface StokerRefusal {
  /** Puts it into the dead letters, as its owner's if the broker vouched for one. The original is the caller's to ack. */
  readonly keep: (delivery: AmqpDelivery, refusal: Refusal) => Effect.Effect<void>
  /** Keeps it and tells its sender: the last event of a job that was never claimed, attempt 0. */
  readonly refuse: (delivery: AmqpDelivery, refusal: Refusal) => Effect.Effect<void>
}

/** A delivery as the dialect reads it. */
export const messageOf = ({ body, properties }: AmqpDelivery): StokerMessage => ({
  body,
  userId: properties.userId,
  messageId: properties.messageId,
  replyTo: properties.replyTo,
  correlationId: properties.correlationId,
  timestamp: properties.timestamp,
  headers: properties.headers
})

/** Where the sender hears of it. Our own queues are nobody's reply queues. */
const replyOf = ({ properties: { correlationId, replyTo } }: AmqpDelivery): StokerReply => ({
  dialect: "stoker",
  ...(replyTo === undefined || !isReplyQueue(replyTo) ? {} : { replyTo }),
  ...(correlationId === undefined ? {} : { correlationId })
})

/** `user` is that of our own connection, which puts letters there for their owners. */
export const make = Effect.fnUntraced(function*(options: {
  readonly trust: Trust
  readonly user: string
  readonly deadQueue: string
  readonly emitter: Pick<Emitter, "send">
}): Effect.fn.Return<StokerRefusal, never, Amqp> {
  const { deadQueue, emitter, trust, user } = options
  const dead = yield* Keeping.make(deadQueue)

  const keep: StokerRefusal["keep"] = (delivery, { reason, remedy }) => {
    const owner = delivery.properties.userId === undefined ? undefined : ownerOf(messageOf(delivery), trust)
    const vouched = owner === undefined || Result.isFailure(owner) ? undefined : { owner: owner.success, user }
    return dead.keep(delivery, { reason, remedy, vouched })
  }

  const tell = Effect.fnUntraced(function*(delivery: AmqpDelivery, { id, reason, remedy }: Refusal) {
    const owner = Result.getOrElse(ownerOf(messageOf(delivery), trust), () => trust.defaultOwner)
    const event: StokerEvent = {
      event: "ended",
      ...(id === undefined ? {} : { id }),
      owner,
      attempt: 0,
      seq: 0,
      atMs: yield* Clock.currentTimeMillis,
      outcome: Outcome.cases.Rejected.make({ reason, remedy }),
      usage: noUsage,
      output: []
    }
    const name = id === undefined ? `${intake}/${owner}/-` : keyText({ intake, owner, id })
    const messages = messagesOf(event, replyOf(delivery), undefined, (n) => `${name}#0.end.${n}`)
    yield* Effect.forEach(messages, (message) => Effect.flatten(emitter.send(message)), { discard: true })
  })

  return {
    keep,
    refuse: (delivery, refusal) =>
      Effect.logWarning(`a message of ${delivery.queue} is kept in ${deadQueue}: ${refusal.reason}`).pipe(
        Effect.andThen(keep(delivery, refusal)),
        Effect.andThen(tell(delivery, refusal))
      )
  }
})
