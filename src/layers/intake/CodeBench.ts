/** The door of the CodeBench worker: takes its clients' messages from RabbitMQ and hands them over as jobs. */
import { Effect, Result, type Scope, Stream } from "effect"
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
import { defaultTargets, statusMessage, type StatusTargets } from "../emitter/CodeBenchMessages.ts"
import type { Emitter } from "../emitter/Emitter.ts"
import * as AmqpDoor from "./AmqpDoor.ts"
import * as AmqpHandOver from "./AmqpHandOver.ts"
import type { Intake } from "./Intake.ts"

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

/** The intake. What it has begun to settle goes on until the scope ends, whether or not anybody takes deliveries. */
export const make = Effect.fnUntraced(function*(
  options: CodeBenchIntakeOptions
): Effect.fn.Return<Intake, never, Amqp | Scope.Scope> {
  const amqp = yield* Amqp
  const door = yield* AmqpDoor.make(options.deadQueue)
  const targets = options.targets ?? defaultTargets

  const tell = Effect.fnUntraced(function*(form: StatusForm, delivery: AmqpDelivery, invalid: CodeBenchInvalid) {
    const { id, reason, remedy } = invalid
    if (id === undefined) return
    const status = ended(id, Outcome.cases.Rejected.make({ reason, remedy }), noUsage, { stdout: "", stderr: "" })
    const key = keyText({ intake, owner: ownerOf(delivery.properties.userId), id })
    // Attempt 0: it was never claimed.
    yield* Effect.flatten(options.emitter.send(statusMessage(targets, form, status, `${key}#0.end.0`)))
  })

  /** The message as a delivery, or nothing: then it is being refused, beside the ones that follow it. */
  const accept = Effect.fnUntraced(function*({ form }: CodeBenchQueue, delivery: AmqpDelivery) {
    const { body, properties: { userId } } = delivery
    const decoded = decode(
      { body, userId, traceparent: AmqpDoor.traceparentOf(delivery) },
      options.maximumBytes ?? defaultMaximumBytes
    )
    if (Result.isSuccess(decoded)) {
      return door.handOver(delivery, decoded.success, { dialect: "codebench", form } satisfies CodeBenchReply)
    }
    yield* door.refuse(delivery, decoded.failure, tell(form, delivery, decoded.failure))
    return undefined
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
