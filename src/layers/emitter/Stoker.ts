/** Tells JobEvents to the exchange `stoker.events`, and to the reply queue a job was sent with. */
import { Cache, Duration, Effect, Exit, Option, Schema, type Scope } from "effect"
import { eventOf, outputOf } from "../../schemas/dialects/StokerEvent.ts"
import { StokerReply } from "../../schemas/dialects/StokerJob.ts"
import { type Message, messageId } from "../../schemas/Message.ts"
import { Amqp, type AmqpMessage } from "../amqp/Amqp.ts"
import { Artefacts } from "../artefacts/Artefacts.ts"
import { Log } from "../log/Log.ts"
import * as AmqpSend from "./AmqpSend.ts"
import type { Emitter, Telling } from "./Emitter.ts"
import { inlineArtefacts } from "./InlineArtefacts.ts"
import { statusOutput } from "./StatusOutput.ts"
import { contentOf, emitterName, type EventContent, eventsTopology, messagesOf } from "./StokerMessages.ts"

export interface StokerEmitterOptions {
  /** `own`: only jobs that came through Stoker's own queues (default). `all`: those of every door. */
  readonly jobs?: "own" | "all"
  /**
   * Most bytes of stdout, and of stderr, in the last event. Default 256 KiB. Artefacts are inlined whole, in their order,
   * as far as what both leave of it has room for them.
   */
  readonly outputBytes?: number
}

/** What it counts. */
export const counters = AmqpSend.countersOf(emitterName)

const decodeReply = Schema.decodeUnknownOption(StokerReply)
const utf8 = new TextEncoder()
const nobody: StokerReply = { dialect: "stoker" }

const amqpMessage = (message: Message, content: EventContent): AmqpMessage => ({
  exchange: content.exchange,
  routingKey: content.routingKey,
  body: utf8.encode(content.body),
  properties: {
    contentType: "application/json",
    type: content.type,
    messageId: AmqpSend.shortId(message.id),
    ...(content.correlationId === undefined ? {} : { correlationId: content.correlationId }),
    ...(content.traceparent === undefined ? {} : { headers: { traceparent: content.traceparent } })
  }
})

/** The emitter. Begins to declare its exchange at once, so that listeners find it before the first job. */
export const make = Effect.fnUntraced(function*(
  options: StokerEmitterOptions = {}
): Effect.fn.Return<Emitter, never, Amqp | Artefacts | Log | Scope.Scope> {
  const amqp = yield* Amqp
  const log = yield* Log
  const artefacts = yield* Artefacts
  const outputBytes = options.outputBytes ?? 256 * 1024
  const ready = yield* Cache.makeWith(
    (_exchange: "exchange") => amqp.ensure(eventsTopology).pipe(Effect.retry(AmqpSend.patience)),
    {
      capacity: 1,
      timeToLive: (exit) => Exit.isFailure(exit) ? 0 : Duration.infinity
    }
  )
  const declared = Cache.get(ready, "exchange").pipe(
    Effect.catch((error) => Effect.logWarning(`events may get lost: ${error.message}`))
  )
  yield* Effect.forkScoped(declared)

  const render = Effect.fnUntraced(function*({ event, job, reply }: Telling) {
    const own = Option.getOrUndefined(decodeReply(reply))
    if (own === undefined && options.jobs !== "all") return []
    const output = event._tag === "Ended"
      ? yield* Effect.forEach(event.output, (summary) =>
        Effect.map(
          statusOutput(log, event.key, summary, 0, outputBytes),
          (pieces) => outputOf(summary, pieces)
        ))
      : []
    const files = event._tag === "Ended" ? event.artefacts ?? [] : []
    const said = output.reduce((sum, { content }) => sum + Buffer.byteLength(content), JSON.stringify(files).length)
    const inlined = yield* inlineArtefacts(artefacts, event.key, files, 2 * outputBytes - said)
    return messagesOf(
      eventOf(event, own?.labels, output, inlined),
      own ?? nobody,
      job.traceparent,
      (n) => messageId(event, n)
    )
  })

  yield* AmqpSend.begin(counters)
  const put = AmqpSend.make({ amqp, counters })
  const send = (message: Message) => {
    const content = Option.getOrUndefined(contentOf(message))
    if (content === undefined) {
      const why = "its content is not one of ours; was it written by another version?"
      return Effect.succeed(AmqpSend.givenUp(counters, message, why))
    }
    const isReply = content.exchange === ""
    return put({
      message,
      outgoing: amqpMessage(message, content),
      // A reply queue is its owner's to declare.
      prepare: isReply ? Effect.void : declared,
      forget: isReply ? Effect.void : Effect.asVoid(Cache.invalidate(ready, "exchange"))
    })
  }

  return { name: emitterName, render, send }
})
