/** The door of the MSTC cloud worker: takes its clients' requests from RabbitMQ and hands them over as container jobs. */
import { Effect, FiberSet, Result, type Scope, Stream } from "effect"
import { randomUUID } from "node:crypto"
import { decode, intake, type MstcInvalid, type MstcOptions } from "../../schemas/dialects/Mstc.ts"
import * as MstcResult from "../../schemas/dialects/MstcResult.ts"
import { Amqp, type AmqpDelivery, type Topology } from "../amqp/Amqp.ts"
import * as Keeping from "../deadletters/Keeping.ts"
import type { Emitter } from "../emitter/Emitter.ts"
import { replyMessage } from "../emitter/Mstc.ts"
import type { Delivery, Intake } from "./Intake.ts"
import { idOfMessage } from "./MessageId.ts"
import { requestHash } from "./RequestHash.ts"

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

const textHeader = ({ properties: { headers } }: AmqpDelivery, name: string) => {
  const value = headers?.[name]
  return typeof value === "string" ? value : undefined
}

/** The intake. What it has begun to settle goes on until the scope ends, whether or not anybody takes deliveries. */
export const make = Effect.fnUntraced(function*(
  options: MstcIntakeOptions
): Effect.fn.Return<Intake, never, Amqp | Scope.Scope> {
  const amqp = yield* Amqp
  const deadQueue = options.deadQueue ?? Keeping.defaultDeadQueue
  const dead = yield* Keeping.make(deadQueue)
  const settling = yield* FiberSet.make<void>()

  const tell = Effect.fnUntraced(function*({ body, properties }: AmqpDelivery, invalid: MstcInvalid, id: string) {
    const told = replyMessage(properties, MstcResult.invalid(invalid, body), `${intake}/invalid/${id}`)
    for (const message of told) yield* Effect.flatten(options.emitter.send(message))
  })

  // Acked last: should we die before, it comes again, and is kept and told once more rather than not at all.
  const refuse = (delivery: AmqpDelivery, invalid: MstcInvalid, id: string) =>
    Effect.logWarning(`a message of ${delivery.queue} is kept in ${deadQueue}: ${invalid.message}`).pipe(
      Effect.andThen(dead.keep(delivery, invalid)),
      Effect.andThen(tell(delivery, invalid, id)),
      Effect.andThen(delivery.ack),
      Effect.catchCause((cause) => Effect.logError("a message is not settled, it stays with the broker", cause))
    )

  const accept = Effect.fnUntraced(function*(delivery: AmqpDelivery) {
    const { body, properties: { correlationId, messageId, replyTo, userId } } = delivery
    // Whoever sends neither id is told apart by nothing: redelivered after our death, it is another job.
    const id = idOfMessage(messageId) || idOfMessage(correlationId) || randomUUID()
    const traceparent = textHeader(delivery, "traceparent")
    const decoded = decode({ body, id, replyTo, correlationId, userId, traceparent }, options)
    if (Result.isFailure(decoded)) {
      yield* FiberSet.run(settling, refuse(delivery, decoded.failure, id))
      return undefined
    }
    const { job, reply } = decoded.success
    const accepted: Delivery = {
      job,
      hash: requestHash(job),
      reply,
      redelivered: delivery.redelivered,
      ack: delivery.ack,
      reject: (reason) =>
        dead.keep(delivery, { reason, remedy: "Send it again, corrected or under another id." }).pipe(
          Effect.andThen(delivery.ack)
        ),
      giveBack: delivery.giveBack
    }
    return accepted
  })

  return {
    name: intake,
    deliveries: amqp.consume(queue, { prefetch: options.prefetch, topology }).pipe(
      Stream.mapEffect(accept),
      Stream.filter((delivery) => delivery !== undefined)
    )
  }
})
