/** What the doors of older systems do alike with a message from RabbitMQ: hand it over as a job, or keep it with its reason. */
import { Effect, FiberSet, type Schema, type Scope } from "effect"
import type { Job } from "../../schemas/Job.ts"
import type { Amqp, AmqpDelivery } from "../amqp/Amqp.ts"
import * as Keeping from "../deadletters/Keeping.ts"
import type { Delivery } from "./Intake.ts"
import { requestHash } from "./RequestHash.ts"

/** Why a message is no job. */
interface Invalid {
  readonly reason: string
  readonly remedy: string
  readonly message: string
}

export interface AmqpDoor {
  /** The job that it was decoded to, with where its sender is told. */
  readonly handOver: (message: AmqpDelivery, job: Job, reply: Schema.Json) => Delivery
  /** Returns at once: it is kept, told and acked beside what follows it, until the scope ends. */
  readonly refuse: (message: AmqpDelivery, invalid: Invalid, tell: Effect.Effect<void>) => Effect.Effect<void>
}

export const traceparentOf = ({ properties: { headers } }: AmqpDelivery): string | undefined => {
  const value = headers?.["traceparent"]
  return typeof value === "string" ? value : undefined
}

export const make = Effect.fnUntraced(function*(
  deadQueue: string = Keeping.defaultDeadQueue
): Effect.fn.Return<AmqpDoor, never, Amqp | Scope.Scope> {
  const dead = yield* Keeping.make(deadQueue)
  const settling = yield* FiberSet.make<void>()
  return {
    handOver: (message, job, reply) => ({
      job,
      hash: requestHash(job),
      reply,
      redelivered: message.redelivered,
      ack: message.ack,
      reject: (reason) =>
        dead.keep(message, { reason, remedy: "Send it again, corrected or under another id." }).pipe(
          Effect.andThen(message.ack)
        ),
      giveBack: message.giveBack
    }),
    refuse: (message, invalid, tell) =>
      Effect.asVoid(FiberSet.run(
        settling,
        // Acked last: should we die before, it comes again, and is kept and told once more rather than not at all.
        Effect.logWarning(`a message of ${message.queue} is kept in ${deadQueue}: ${invalid.message}`).pipe(
          Effect.andThen(dead.keep(message, invalid)),
          Effect.andThen(tell),
          Effect.andThen(message.ack),
          Effect.catchCause((cause) => Effect.logError("a message is not settled, it stays with the broker", cause))
        )
      ))
  }
})
