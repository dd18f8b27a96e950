/** CodeBench statuses as messages for the outbox: where they go, what is in them, and what a sender must declare. */
import { Result, Schema } from "effect"
import type { StatusForm } from "../../schemas/dialects/CodeBench.ts"
import { type CodeBenchStatus, encode } from "../../schemas/dialects/CodeBenchStatus.ts"
import type { JobId } from "../../schemas/Ids.ts"
import type { Message } from "../../schemas/Message.ts"
import type { QueueSpec, Topology } from "../amqp/Amqp.ts"

/** The emitter's name, and so that of its messages. */
export const emitterName = "codebench"

/** Names and lifetimes of where statuses go. */
export interface StatusTargets {
  /** A direct exchange, not durable: as the old worker declared it, and its clients expect to find it. */
  readonly exchange: string
  readonly routingKey: string
  /** The queue per job is called this and the job's id. */
  readonly queuePrefix: string
  /**
   * The queue per job as it is made when nobody has. The old worker made it neither durable nor expiring, so that it
   * stayed until the broker's end; for a client that declares it so itself, and later than us, set `durable: false`
   * and `expires` and `maxLength` to undefined (RabbitMQ 4.3 refuses such queues).
   */
  readonly queueProperties: {
    readonly durable: boolean
    /** Milliseconds without a reader before the broker removes it. */
    readonly expires?: number | undefined
    /** Messages. */
    readonly maxLength?: number | undefined
  }
}

export const defaultTargets: StatusTargets = {
  exchange: "jobs_status_ex",
  routingKey: "jobs_status_rk",
  queuePrefix: "job_status_",
  queueProperties: { durable: true, expires: 3_600_000, maxLength: 1000 }
}

/** What `send` needs of one status. */
export const StatusContent = Schema.Struct({
  exchange: Schema.String,
  routingKey: Schema.String,
  /** The queue to make first, if it goes to one. */
  queue: Schema.optionalKey(Schema.String),
  /** JSON text. */
  body: Schema.String
})
export type StatusContent = typeof StatusContent.Type

const decodeContent = Schema.decodeUnknownResult(StatusContent)

/** The content of a message that `statusMessage` made, perhaps in another process. */
export const contentOf = (message: Message) => Result.getSuccess(decodeContent(message.content))

/** A status as a message. `id` as `Message` says: stable over resends. */
export const statusMessage = (
  targets: StatusTargets,
  form: StatusForm,
  status: CodeBenchStatus,
  id: string
): Message => ({
  id,
  emitter: emitterName,
  content: { ...addressOf(targets, form, status.id), body: encode(form, status) } satisfies StatusContent
})

const addressOf = (targets: StatusTargets, form: StatusForm, id: JobId): Omit<StatusContent, "body"> => {
  if (form === "exchange") return { exchange: targets.exchange, routingKey: targets.routingKey }
  const queue = `${targets.queuePrefix}${id}`
  // Through the default exchange, where a queue's name is its routing key.
  return { exchange: "", routingKey: queue, queue }
}

export const exchangeTopology = (targets: StatusTargets): Topology => ({
  exchanges: [{ name: targets.exchange, type: "direct", durable: false }]
})

export const queueSpec = (
  { queueProperties: { durable, expires, maxLength } }: StatusTargets,
  name: string
): QueueSpec => ({
  name,
  durable,
  ...(expires === undefined ? {} : { expires }),
  ...(maxLength === undefined ? {} : { maxLength })
})
