import type { Effect, Stream } from "effect"
import { Context, Schema } from "effect"

/** The basic properties of AMQP 0-9-1 (section 4.2.6.1) that Stoker reads or writes. Absent is absent on the wire. */
export interface AmqpProperties {
  readonly contentType?: string
  readonly contentEncoding?: string
  readonly correlationId?: string
  readonly replyTo?: string
  readonly messageId?: string
  readonly type?: string
  /** Validated by the broker: must be the user of the connection. */
  readonly userId?: string
  readonly appId?: string
  /** 0 to 255; counts only in queues declared with `x-max-priority`. */
  readonly priority?: number
  /** Seconds since 1970. */
  readonly timestamp?: number
  /** Milliseconds, as decimal text. */
  readonly expiration?: string
  readonly headers?: Readonly<Record<string, unknown>>
}

/** One message to publish. The body must not be changed before its confirm. */
export interface AmqpMessage {
  /** "" is the default exchange: the routing key is then a queue's name. */
  readonly exchange: string
  readonly routingKey: string
  readonly body: Uint8Array
  /** Written to disk by durable queues. Default true. */
  readonly persistent?: boolean
  /** Ask the broker to say so if no queue takes it. Default true; if false, the receipt always says routed. */
  readonly mandatory?: boolean
  readonly properties?: AmqpProperties
}

/** What the broker's confirm said: it has the message, and whether any queue took it. */
export interface PublishReceipt {
  readonly routed: boolean
}

/** An exchange as we would make it if nobody has. */
export interface ExchangeSpec {
  readonly name: string
  readonly type: "direct" | "fanout" | "topic" | "headers"
  /** Default true. */
  readonly durable?: boolean
  readonly autoDelete?: boolean
  /** The exchange that gets what no binding takes (`alternate-exchange`). Absent: such messages come back, or are dropped. */
  readonly alternate?: string
}

/** A queue as we would make it if nobody has. */
export interface QueueSpec {
  readonly name: string
  /** Default true. */
  readonly durable?: boolean
  /** Only for our consuming connection, gone with it. */
  readonly exclusive?: boolean
  readonly autoDelete?: boolean
  /** Messages; older ones are dropped (`x-max-length`). */
  readonly maxLength?: number
  /** Milliseconds unused before the broker removes the queue (`x-expires`). */
  readonly expires?: number
  readonly arguments?: Readonly<Record<string, string | number | boolean>>
}

export interface BindingSpec {
  readonly exchange: string
  readonly queue: string
  readonly routingKey: string
}

/** Exchanges, queues and bindings as data. The default exchange and its bindings always exist. */
export interface Topology {
  readonly exchanges?: ReadonlyArray<ExchangeSpec>
  readonly queues?: ReadonlyArray<QueueSpec>
  readonly bindings?: ReadonlyArray<BindingSpec>
}

/**
 * One message taken from a queue. Settle it once, with any of the three; a second settling does nothing. None of them
 * fails: on a dead channel they do nothing, and the broker delivers the message again.
 */
export interface AmqpDelivery {
  readonly body: Uint8Array
  readonly properties: AmqpProperties
  readonly exchange: string
  readonly routingKey: string
  readonly queue: string
  readonly redelivered: boolean
  /** Done: the broker forgets it. */
  readonly ack: Effect.Effect<void>
  /** Not wanted: dead-lettered if the queue says where to, else dropped. */
  readonly reject: Effect.Effect<void>
  /** Not started: back into the queue, for whoever is next. */
  readonly giveBack: Effect.Effect<void>
}

export interface ConsumeOptions {
  /** Deliveries the broker may have outstanding here, 1 to 65535. Also the size of the buffer. */
  readonly prefetch: number
  /** Ensured before every subscription, so a deleted queue comes back. */
  readonly topology?: Topology
  readonly exclusive?: boolean
}

/** How the connections to the broker stand. */
export interface AmqpStatus {
  /** Both connections are up. */
  readonly connected: boolean
  readonly publishing: boolean
  readonly consuming: boolean
  /** Queues that are subscribed to now: what arrives there is delivered. */
  readonly queues: ReadonlyArray<string>
  /** The broker's words while an alarm (memory, disk) holds publishing back. */
  readonly blocked: string | undefined
  readonly lastError: AmqpError | undefined
}

/** The broker could not do it, or not with us: at which step, why, and what the operator can do. */
export class AmqpError extends Schema.TaggedError<AmqpError>()("AmqpError", {
  operation: Schema.String,
  reason: Schema.Literals(["Connect", "Closed", "Channel", "Nacked", "Topology", "TooLarge", "Invalid"]),
  /** host:port, never credentials. */
  broker: Schema.String,
  detail: Schema.String,
  remedy: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    return `${this.operation} failed at RabbitMQ ${this.broker} (${this.reason}): ${this.detail}. ${this.remedy}`
  }
}

/** Transport over AMQP 0-9-1. Whatever needs the broker waits while it is away; put your own time limit around it. */
export class Amqp extends Context.Service<Amqp, {
  /** Completes when the broker has confirmed. Survives reconnects (at least once). Interrupting it un-sends nothing. */
  readonly publish: (message: AmqpMessage) => Effect.Effect<PublishReceipt, AmqpError>
  /**
   * Puts the message in the ordered window now (waiting while the window is full) and gives the effect that waits for
   * its confirm. Messages go out in the order of their `enqueue`, again after a reconnect.
   */
  readonly enqueue: (message: AmqpMessage) => Effect.Effect<Effect.Effect<PublishReceipt, AmqpError>>
  /**
   * Deliveries for ever, over reconnects and deleted queues; ends only with the layer. Ending the stream cancels the
   * consumer and gives back what was not pulled; what was pulled can be settled until the layer's scope closes.
   */
  readonly consume: (queue: string, options: ConsumeOptions) => Stream.Stream<AmqpDelivery>
  /**
   * Makes what is missing and uses what is there, however it was declared. Remembered: ensured again on every
   * reconnection before use, so give it names that last; for a queue per job there is `declareOrUse`.
   */
  readonly ensure: (topology: Topology) => Effect.Effect<void, AmqpError>
  /** One cheap declare, not remembered. A queue of that name with other properties is fine. */
  readonly declareOrUse: (queue: QueueSpec) => Effect.Effect<void, AmqpError>
  readonly status: Effect.Effect<AmqpStatus>
  /** The status now, then every change. */
  readonly changes: Stream.Stream<AmqpStatus>
}>()("stoker/layers/amqp/Amqp") {}
