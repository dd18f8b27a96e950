/** The door of the CodeBench worker: takes its clients' messages from RabbitMQ and hands them over as jobs. */
import { Effect, FiberSet, Result, type Scope, Stream } from "effect"
import {
  type CodeBenchInvalid,
  type CodeBenchReply,
  decode,
  defaultMaximumBytes,
  intake,
  ownerOf,
  type StatusForm
} from "../../schemas/dialects/CodeBench.ts"
import { ended } from "../../schemas/dialects/CodeBenchStatus.ts"
import { keyText } from "../../schemas/Ids.ts"
import { Outcome } from "../../schemas/Outcome.ts"
import { noUsage } from "../../schemas/Usage.ts"
import { Amqp, type AmqpDelivery, type Topology } from "../amqp/Amqp.ts"
import * as Keeping from "../deadletters/Keeping.ts"
import { defaultTargets, statusMessage, type StatusTargets } from "../emitter/CodeBenchMessages.ts"
import type { Emitter } from "../emitter/Emitter.ts"
import * as AmqpHandOver from "./AmqpHandOver.ts"
import type { Delivery, Intake } from "./Intake.ts"
import { requestHash } from "./RequestHash.ts"

/** A queue that jobs come from, and the form their statuses take. */
export interface CodeBenchQueue {
  readonly queue: string
  readonly form: StatusForm
  /** Deliveries outstanding at once: this queue's fixed share of the worker's slots. */
  readonly prefetch: number
  /** A durable direct exchange the queue is bound to. Absent: clients send to the queue by its name. */
  readonly binding?: { readonly exchange: string; readonly routingKey: string }
}

/** `jobs_q` behind `jobs_ex`, as the worker of 8b87916 and its API server declare them: all durable, no arguments. */
export const exchangeQueue = (prefetch: number): CodeBenchQueue => ({
  queue: "jobs_q",
  form: "exchange",
  prefetch,
  binding: { exchange: "jobs_ex", routingKey: "jobs_rk" }
})

/** The README's `jobs`, as the worker of ca509ce declared it: durable, no arguments. */
export const readmeQueue = (prefetch: number): CodeBenchQueue => ({ queue: "jobs", form: "queue", prefetch })

export interface CodeBenchIntakeOptions {
  readonly queues: ReadonlyArray<CodeBenchQueue>
  /** Tells the senders of messages that are no jobs. */
  readonly emitter: Pick<Emitter, "send">
  /** The emitter's. */
  readonly targets?: StatusTargets
  /** Bytes. Default 16 MiB. */
  readonly maximumBytes?: number
  /** Default `stoker.dead`. */
  readonly deadQueue?: string
}

const topologyOf = ({ binding, queue }: CodeBenchQueue): Topology => ({
  exchanges: binding === undefined ? [] : [{ name: binding.exchange, type: "direct", durable: true }],
  queues: [{ name: queue, durable: true }],
  bindings: binding === undefined ? [] : [{ ...binding, queue }]
})

const traceparentOf = ({ properties: { headers } }: AmqpDelivery) => {
  const value = headers?.["traceparent"]
  return typeof value === "string" ? value : undefined
}

/** The intake. What it has begun to settle goes on until the scope ends, whether or not anybody takes deliveries. */
export const make = Effect.fnUntraced(function*(
  options: CodeBenchIntakeOptions
): Effect.fn.Return<Intake, never, Amqp | Scope.Scope> {
  const amqp = yield* Amqp
  const deadQueue = options.deadQueue ?? Keeping.defaultDeadQueue
  const dead = yield* Keeping.make(deadQueue)
  const settling = yield* FiberSet.make<void>()
  const targets = options.targets ?? defaultTargets

  const tell = Effect.fnUntraced(function*(form: StatusForm, delivery: AmqpDelivery, invalid: CodeBenchInvalid) {
    const { id, reason, remedy } = invalid
    if (id === undefined) return
    const status = ended(id, Outcome.cases.Rejected.make({ reason, remedy }), noUsage, { stdout: "", stderr: "" })
    const key = keyText({ intake, owner: ownerOf(delivery.properties.userId), id })
    // Attempt 0: it was never claimed.
    yield* Effect.flatten(options.emitter.send(statusMessage(targets, form, status, `${key}#0.end.0`)))
  })

  // Acked last: should we die before, it comes again, and is kept and told once more rather than not at all.
  const refuse = (form: StatusForm, delivery: AmqpDelivery, invalid: CodeBenchInvalid) =>
    Effect.logWarning(`a message of ${delivery.queue} is kept in ${deadQueue}: ${invalid.message}`).pipe(
      Effect.andThen(dead.keep(delivery, invalid)),
      Effect.andThen(tell(form, delivery, invalid)),
      Effect.andThen(delivery.ack),
      Effect.catchCause((cause) => Effect.logError("a message is not settled, it stays with the broker", cause))
    )

  /** The message as a delivery, or nothing: then it is being refused, beside the ones that follow it. */
  const accept = Effect.fnUntraced(function*({ form }: CodeBenchQueue, delivery: AmqpDelivery) {
    const decoded = decode(
      { body: delivery.body, userId: delivery.properties.userId, traceparent: traceparentOf(delivery) },
      options.maximumBytes ?? defaultMaximumBytes
    )
    if (Result.isFailure(decoded)) {
      yield* FiberSet.run(settling, refuse(form, delivery, decoded.failure))
      return undefined
    }
    const job = decoded.success
    const accepted: Delivery = {
      job,
      hash: requestHash(job),
      reply: { dialect: "codebench", form } satisfies CodeBenchReply,
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

  const deliveries = AmqpHandOver.merge(options.queues.map((queue) => ({
    weight: 1,
    deliveries: amqp.consume(queue.queue, { prefetch: queue.prefetch, topology: topologyOf(queue) }).pipe(
      Stream.mapEffect((raw) => accept(queue, raw)),
      Stream.filter((delivery) => delivery !== undefined)
    )
  })))

  return { name: intake, deliveries }
})
