/** JobEvents as messages for the outbox: one for the exchange, one for whoever asked for a reply. */
import { Result, Schema } from "effect"
import { encode, routingKeyOf, type StokerEvent } from "../../schemas/dialects/StokerEvent.ts"
import type { StokerReply } from "../../schemas/dialects/StokerJob.ts"
import type { Message } from "../../schemas/Message.ts"
import type { Topology } from "../amqp/Amqp.ts"

/** The emitter's name, and so that of its messages. */
export const emitterName = "stoker"

/** All events of all jobs; routing keys are `<owner>.<id>.<event>`. */
export const eventsExchange = "stoker.events"

export const eventsTopology: Topology = { exchanges: [{ name: eventsExchange, type: "topic", durable: true }] }

/** What `send` needs of one message. */
export const EventContent = Schema.Struct({
  exchange: Schema.String,
  routingKey: Schema.String,
  correlationId: Schema.optionalKey(Schema.String),
  traceparent: Schema.optionalKey(Schema.String),
  /** The event's word, for receivers that look at the `type` property alone. */
  type: Schema.String,
  /** JSON text. */
  body: Schema.String
})
export type EventContent = typeof EventContent.Type

const decodeContent = Schema.decodeUnknownResult(EventContent)

/** The content of a message that `messagesOf` made, perhaps in another process. */
export const contentOf = (message: Message) => Result.getSuccess(decodeContent(message.content))

/** The messages of one event. `id` gives the n-th its stable id. */
export const messagesOf = (
  event: StokerEvent,
  reply: StokerReply,
  traceparent: string | undefined,
  id: (n: number) => string
): ReadonlyArray<Message> => {
  const common = {
    type: event.event,
    body: encode(event),
    ...(traceparent === undefined ? {} : { traceparent })
  }
  const toExchange: ReadonlyArray<EventContent> = event.id === undefined
    ? []
    : [{
      exchange: eventsExchange,
      routingKey: routingKeyOf({ id: event.id, owner: event.owner }, event.event),
      ...common
    }]
  const { correlationId, replyTo } = reply
  const toSender: ReadonlyArray<EventContent> = replyTo === undefined
    ? []
    // Through the default exchange, where a queue's name is its routing key.
    : [{ exchange: "", routingKey: replyTo, ...common, ...(correlationId === undefined ? {} : { correlationId }) }]
  return [...toExchange, ...toSender].map((content, n) => ({ id: id(n), emitter: emitterName, content }))
}
