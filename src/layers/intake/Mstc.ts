/** The door of the MSTC cloud worker: takes its clients' requests from RabbitMQ and hands them over as container jobs. */
import { Effect, Result, type Scope, Stream } from "effect"
import { randomUUID } from "node:crypto"
import { decode, intake, type MstcInvalid, type MstcOptions } from "../../schemas/dialects/Mstc.ts"
import * as MstcResult from "../../schemas/dialects/MstcResult.ts"
import { Amqp, type AmqpDelivery, type Topology } from "../amqp/Amqp.ts"
import type { Emitter } from "../emitter/Emitter.ts"
import { replyMessage } from "../emitter/Mstc.ts"
import * as AmqpDoor from "./AmqpDoor.ts"
import type { Intake } from "./Intake.ts"
import { idOfMessage } from "./MessageId.ts"

/** As the old worker and its Python client declare them: durable, without arguments; the key is the queue's name. */
export const queue = "mstc.queue.work"
export const exchange = "mstc.exchange"

const topology: Topology = {
  exchanges: [{ name: exchange, type: "direct", durable: true }],
  queues: [{ name: queue, durable: true }],
  bindings: [{ exchange, queue, routingKey: queue }]
}

export interface MstcIntakeOptions extends MstcOptions {
  /** Deliveries outstanding at once. */
  readonly prefetch: number
  /** Tells the senders of messages that are no requests. */
  readonly emitter: Pick<Emitter, "send">
  /** Default `stoker.dead`. */
  readonly deadQueue?: string
}

/** The intake. What it has begun to settle goes on until the scope ends, whether or not anybody takes deliveries. */
export const make = Effect.fnUntraced(function*(
  options: MstcIntakeOptions
): Effect.fn.Return<Intake, never, Amqp | Scope.Scope> {
  const amqp = yield* Amqp
  const door = yield* AmqpDoor.make(options.deadQueue)

  const tell = Effect.fnUntraced(function*({ body, properties }: AmqpDelivery, invalid: MstcInvalid, id: string) {
    const told = replyMessage(properties, MstcResult.invalid(invalid, body), `${intake}/invalid/${id}`)
    for (const message of told) yield* Effect.flatten(options.emitter.send(message))
  })

  const accept = Effect.fnUntraced(function*(message: AmqpDelivery) {
    const { body, properties: { correlationId, messageId, replyTo, userId } } = message
    // Whoever sends neither id is told apart by nothing: redelivered after our death, it is another job.
    const id = idOfMessage(messageId) || idOfMessage(correlationId) || randomUUID()
    const traceparent = AmqpDoor.traceparentOf(message)
    const decoded = decode({ body, id, replyTo, correlationId, userId, traceparent }, options)
    if (Result.isSuccess(decoded)) return door.handOver(message, decoded.success.job, decoded.success.reply)
    yield* door.refuse(message, decoded.failure, tell(message, decoded.failure, id))
    return undefined
  })

  return {
    name: intake,
    deliveries: amqp.consume(queue, { prefetch: options.prefetch, topology }).pipe(
      Stream.mapEffect(accept),
      Stream.filter((delivery) => delivery !== undefined)
    )
  }
})
