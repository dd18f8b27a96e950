import type { Channel, ConsumeMessage, MessageProperties } from "amqplib"
import { Deferred, Effect, Predicate } from "effect"
import type { AmqpDelivery, AmqpError, AmqpProperties } from "./Amqp.ts"
import type { Link } from "./Connection.ts"
import * as Connection from "./Connection.ts"
import * as Farewell from "./Farewell.ts"
import * as Fault from "./Fault.ts"

/** One channel with one consumer. Its channel outlives the consumer until all that was delivered on it is settled. */
export interface Subscription {
  readonly start: Effect.Effect<void, AmqpError>
  /** The reason it ended: an error of the broker, or undefined if it went with its connection. */
  readonly ended: Effect.Effect<unknown>
  /** No more deliveries, within the limit; what still arrives goes back. */
  readonly cancel: Effect.Effect<void>
  /** Closes the channel as soon as nothing is outstanding on it. */
  readonly retire: Effect.Effect<void>
}

/** Opens the channel; consuming begins with `start`. `accept` says no to a delivery it has no room for. */
export const open = Effect.fnUntraced(function*(link: Link, options: {
  readonly queue: string
  readonly prefetch: number
  readonly exclusive: boolean
  readonly tag: string
  readonly accept: (delivery: AmqpDelivery) => boolean
  /** The channel is dead: what was delivered on it comes again. Called before anything else can run. */
  readonly onDead: () => void
}): Effect.fn.Return<Subscription, AmqpError> {
  const cancelled = Deferred.makeUnsafe<unknown>()
  let outstanding = 0
  let isCancelling = false
  let isRetired = false
  const { channel, close, ended, isOpen } = yield* Connection.openChannel(link, (model) => model.createChannel())
  channel.on("close", options.onDead)

  const closeIfDone = Effect.suspend(() => isRetired && (outstanding === 0 || !isOpen()) ? close : Effect.void)

  const settlingOnce = () => {
    let isSettled = false
    return (settle: (channel: Channel) => void) =>
      Effect.suspend(() => {
        if (isSettled) return Effect.void
        isSettled = true
        outstanding -= 1
        write(() => settle(channel))
        return closeIfDone
      })
  }

  /** On a dead or dying channel nothing is to be done: the broker delivers again. */
  const write = (settle: () => void) => {
    if (!isOpen()) return
    try {
      settle()
    } catch {
      return
    }
  }

  const receive = (message: ConsumeMessage | null) => {
    if (message === null) {
      Deferred.doneUnsafe(cancelled, Effect.succeed(new Error("the broker cancelled it: was the queue deleted?")))
      return
    }
    const settling = settlingOnce()
    outstanding += 1
    const isAccepted = !isCancelling && options.accept({
      body: message.content,
      properties: readProperties(message.properties),
      exchange: message.fields.exchange,
      routingKey: message.fields.routingKey,
      queue: options.queue,
      redelivered: message.fields.redelivered,
      ack: settling((channel) => channel.ack(message)),
      reject: settling((channel) => channel.reject(message, false)),
      // nack, not reject: RabbitMQ 4.3 counts only the latter against a delivery limit.
      giveBack: settling((channel) => channel.nack(message, false, true))
    })
    if (isAccepted) return
    outstanding -= 1
    write(() => channel.nack(message, false, true))
  }

  const ask = (request: () => Promise<unknown>) =>
    Effect.tryPromise({
      try: request,
      catch: (cause) => {
        const code = Fault.replyCode(cause)
        return Fault.at(link.address)(
          code === undefined ? "Closed" : "Channel",
          `consuming queue ${options.queue}`,
          remedyFor(code, link.address),
          cause
        )
      }
    })

  return {
    start: Effect.andThen(
      ask(() => channel.prefetch(options.prefetch)),
      Effect.asVoid(
        ask(() => channel.consume(options.queue, receive, { consumerTag: options.tag, exclusive: options.exclusive }))
      )
    ),
    ended: Effect.raceFirst(ended, Deferred.await(cancelled)),
    cancel: Effect.suspend(() => {
      isCancelling = true
      return isOpen()
        ? Farewell.say(`cancelling the consumer of queue ${options.queue}`, () => channel.cancel(options.tag), ended)
        : Effect.void
    }),
    retire: Effect.suspend(() => {
      isRetired = true
      return closeIfDone
    })
  }
})

const remedyFor = (code: number | undefined, address: string): string => {
  switch (code) {
    case 404:
      return "Declare the queue, or correct its name; it is looked for again"
    case 403:
      return "Grant this user read permission, or end the exclusive consumer"
    case 405:
      return "The queue belongs to another connection alone"
    default:
      return `Is RabbitMQ running at ${address}?`
  }
}

const readProperties = (from: MessageProperties): AmqpProperties => {
  const text = (
    key:
      | "contentType"
      | "contentEncoding"
      | "correlationId"
      | "replyTo"
      | "messageId"
      | "type"
      | "userId"
      | "appId"
      | "expiration"
  ) => Predicate.isString(from[key]) ? { [key]: from[key] } : {}
  return {
    ...text("contentType"),
    ...text("contentEncoding"),
    ...text("correlationId"),
    ...text("replyTo"),
    ...text("messageId"),
    ...text("type"),
    ...text("userId"),
    ...text("appId"),
    ...text("expiration"),
    ...(Predicate.isNumber(from.priority) ? { priority: from.priority } : {}),
    ...(Predicate.isNumber(from.timestamp) ? { timestamp: from.timestamp } : {}),
    ...(from.headers === undefined ? {} : { headers: from.headers })
  }
}
