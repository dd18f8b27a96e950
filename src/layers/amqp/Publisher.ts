import type { ConfirmChannel, Options } from "amqplib"
import { IllegalOperationError } from "amqplib"
import type { Scope } from "effect"
import { Duration, Effect } from "effect"
import { monotonicMs } from "../Now.ts"
import type { Amqp, AmqpMessage } from "./Amqp.ts"
import { AmqpError } from "./Amqp.ts"
import * as Backoff from "./Backoff.ts"
import type { Link } from "./Connection.ts"
import * as Connection from "./Connection.ts"
import * as Fault from "./Fault.ts"
import * as Window from "./Window.ts"

/** A nack usually means a full queue: long enough for a consumer to make room, short enough for a status. */
const nackPause = Duration.millis(250)
/** A channel that lived this long is no sign of a message that closes every channel. */
const healthyAfter = Duration.seconds(5)
/** What a closing scope grants to confirms that are still on their way. */
const drainLimit = Duration.seconds(2)

/** Publishes over whatever channel there is, one after the other, through the one ordered window. */
export interface Publisher {
  readonly publish: Amqp["Service"]["publish"]
  readonly enqueue: Amqp["Service"]["enqueue"]
  /** What to do with a publishing connection while it lives. */
  readonly session: (link: Link) => Effect.Effect<never, AmqpError>
  readonly block: (blocked: boolean) => void
  /** Waits for outstanding confirms, within the limit. */
  readonly drain: Effect.Effect<void>
}

/** The window lives as long as the scope; what is left in it then fails. */
export const make = Effect.fnUntraced(function*(options: {
  readonly address: string
  readonly messages: number
  readonly bytes: number
  readonly maxMessageBytes: number
}) {
  const error = Fault.at(options.address)
  const scope = yield* Effect.scope
  const fork = Effect.runForkWith(yield* Effect.context<Scope.Scope>())
  const window = Window.make(
    { messages: options.messages, bytes: options.bytes, strikes: 3, nacks: 5 },
    {
      impossible: (message, cause) =>
        error("Invalid", publishing(message), "Shorten its names and headers, or correct their types", cause),
      closesChannel: (message, cause) =>
        error("Channel", publishing(message), remedyFor(message, Fault.replyCode(cause)), cause),
      nacked: (message) =>
        error(
          "Nacked",
          publishing(message),
          "Is a queue behind it full (x-max-length with reject-publish) or without a majority of its replicas?",
          new Error("the broker refused the message, again after every pause")
        )
    },
    (resume) => void fork(Effect.forkIn(Effect.andThen(Effect.sleep(nackPause), Effect.sync(resume)), scope))
  )
  yield* Effect.addFinalizer(() =>
    Effect.sync(() =>
      window.close(
        error("Closed", "publishing", "The connection was closed by us: publish before that", new Error("closed"))
      )
    )
  )

  const tooLarge = (message: AmqpMessage) =>
    new AmqpError({
      operation: publishing(message),
      reason: "TooLarge",
      broker: options.address,
      detail: `the body has ${message.body.byteLength} bytes, more than ${options.maxMessageBytes}`,
      remedy: "Send large content by reference"
    })

  const enqueue: Publisher["enqueue"] = (message) =>
    message.body.byteLength > options.maxMessageBytes
      ? Effect.succeed(Effect.fail(tooLarge(message)))
      : window.enqueue(message)

  /** One channel's life: gives its error once it is gone. */
  const channelLife = Effect.fnUntraced(function*(link: Link) {
    const opened = yield* Connection.openChannel(link, (model) => model.createConfirmChannel())
    const { channel } = opened
    const wire: Window.Wire = { send: (message) => send(channel, message) }
    const detach = () => window.detach(wire, blame(opened.fault() ?? link.fault()))
    // At once, so that nothing is sent on a dead channel.
    channel.on("close", detach)
    channel.on("ack", ({ deliveryTag, multiple }) => window.confirm(deliveryTag, multiple))
    channel.on("nack", ({ deliveryTag, multiple }) => window.nack(deliveryTag, multiple))
    channel.on("drain", () => window.drained())
    channel.on(
      "return",
      (message) =>
        window.returned((candidate) =>
          candidate.exchange === message.fields.exchange && candidate.routingKey === message.fields.routingKey &&
          candidate.properties?.messageId === message.properties.messageId && message.content.equals(candidate.body)
        )
    )
    return yield* Effect.sync(() => window.attach(wire)).pipe(
      Effect.andThen(opened.ended),
      Effect.ensuring(Effect.suspend(() => {
        detach()
        return opened.close
      }))
    )
  })

  const session = Effect.fnUntraced(function*(link: Link) {
    let warned = ""
    while (true) {
      const began = yield* monotonicMs
      const cause = yield* channelLife(link)
      if (cause !== undefined) {
        const closed = `RabbitMQ ${link.address} closed the publishing channel: ${Fault.words(cause)}`
        yield* closed === warned ? Effect.logDebug(closed) : Effect.logWarning(closed)
        warned = closed
      }
      const lived = (yield* monotonicMs) - began
      // Short, because what closes channels is struck out after a few of them, and the others wait meanwhile.
      yield* Backoff.sleep(lived >= Duration.toMillis(healthyAfter) ? 0 : 1)
    }
  })

  return {
    publish: Effect.fn("Amqp.publish")((message: AmqpMessage) => Effect.flatten(enqueue(message))),
    enqueue,
    session,
    block: window.block,
    drain: window.settled.pipe(
      Effect.timeoutOrElse({
        duration: drainLimit,
        orElse: () => Effect.logWarning(`closing with ${window.size()} messages unconfirmed: they count as not sent`)
      })
    )
  } satisfies Publisher
})

const publishing = (message: AmqpMessage) =>
  message.exchange === ""
    ? `publishing to queue ${message.routingKey}`
    : `publishing to exchange ${message.exchange} with key ${message.routingKey}`

/** Only what the broker said about something in flight is held against a message, not lost sockets or restarts. */
const blame = (cause: unknown): { readonly cause: unknown } | undefined => {
  const code = Fault.replyCode(cause)
  return code === undefined || code < 300 || code === 320 ? undefined : { cause }
}

const remedyFor = (message: AmqpMessage, code: number | undefined): string => {
  switch (code) {
    case 404:
      return `Declare exchange ${message.exchange}, or correct its name`
    case 403:
      return `Grant this user write permission on exchange ${message.exchange}`
    default:
      return "The broker closed the channel each time it came: see its words and its log"
  }
}

const send = (channel: ConfirmChannel, message: AmqpMessage): boolean => {
  const body = Buffer.from(message.body.buffer, message.body.byteOffset, message.body.byteLength)
  const options: Options.Publish = {
    ...message.properties,
    persistent: message.persistent ?? true,
    mandatory: message.mandatory ?? true
  }
  try {
    return channel.publish(message.exchange, message.routingKey, body, options)
  } catch (cause) {
    throw cause instanceof IllegalOperationError ? new Window.Gone(cause.message, { cause }) : cause
  }
}
