/** Answers the MSTC worker's clients when their jobs have ended: one message to the queue each of them waits at. */
import { Effect, Option, Schema, type Scope } from "effect"
import { MstcReply } from "../../schemas/dialects/Mstc.ts"
import { ended, type MstcResult } from "../../schemas/dialects/MstcResult.ts"
import { type Message, messageId } from "../../schemas/Message.ts"
import { Amqp, type AmqpMessage } from "../amqp/Amqp.ts"
import { Log } from "../log/Log.ts"
import * as AmqpSend from "./AmqpSend.ts"
import type { Emitter, Telling } from "./Emitter.ts"
import { mstcOutput } from "./MstcOutput.ts"

/** The emitter's name, and so that of its messages. */
export const emitterName = "mstc"

/** What it counts. */
export const counters = AmqpSend.countersOf(emitterName)

/** What `send` needs. */
const Content = Schema.Struct({
  replyTo: Schema.String,
  correlationId: Schema.optionalKey(Schema.String),
  /** JSON text. */
  body: Schema.String
})

const decodeReply = Schema.decodeUnknownOption(MstcReply)
const decodeContent = Schema.decodeUnknownOption(Content)
const utf8 = new TextEncoder()

/** An answer as a message; nothing where nobody waits. */
export const replyMessage = (
  { correlationId, replyTo }: Pick<MstcReply, "replyTo" | "correlationId">,
  result: MstcResult,
  id: string
): ReadonlyArray<Message> =>
  replyTo === undefined ? [] : [{
    id,
    emitter: emitterName,
    content: {
      replyTo,
      ...(correlationId === undefined ? {} : { correlationId }),
      body: JSON.stringify(result)
    }
  }]

const amqpMessage = (message: Message, { body, correlationId, replyTo }: typeof Content.Type): AmqpMessage => ({
  exchange: "",
  routingKey: replyTo,
  body: utf8.encode(body),
  properties: {
    contentType: "application/json",
    messageId: AmqpSend.shortId(message.id),
    ...(correlationId === undefined ? {} : { correlationId })
  }
})

export const make: Effect.Effect<Emitter, never, Amqp | Log | Scope.Scope> = Effect.gen(function*() {
  const amqp = yield* Amqp
  const log = yield* Log

  const render = Effect.fnUntraced(function*({ event, job, reply }: Telling) {
    const own = Option.getOrUndefined(decodeReply(reply))
    if (own === undefined || event._tag !== "Ended" || own.replyTo === undefined) return []
    const output = own.form === "urls" ? yield* mstcOutput(log, event.key, event.output) : ""
    return replyMessage(own, ended({ ...own, id: job.id }, event.outcome, output), messageId(event, 0))
  })

  yield* AmqpSend.begin(counters)
  const put = AmqpSend.make({ amqp, counters })
  const send = (message: Message) => {
    const content = Option.getOrUndefined(decodeContent(message.content))
    if (content === undefined) {
      const why = "its content is not one of ours; was it written by another version?"
      return Effect.succeed(AmqpSend.givenUp(counters, message, why))
    }
    // A reply queue is its owner's to declare.
    return put({ message, outgoing: amqpMessage(message, content), prepare: Effect.void, forget: Effect.void })
  }
  return { name: emitterName, render, send }
})
