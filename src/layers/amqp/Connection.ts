import * as amqplib from "amqplib"
import { Deferred, Duration, Effect, Exit, Redacted, Scope } from "effect"
import { monotonicMs } from "../Now.ts"
import type { AmqpError } from "./Amqp.ts"
import * as Backoff from "./Backoff.ts"
import type { Endpoint } from "./Endpoint.ts"
import * as Farewell from "./Farewell.ts"
import * as Fault from "./Fault.ts"

/** One live connection. Its scope closes with it: what is opened on it belongs there. */
export interface Link {
  readonly model: amqplib.ChannelModel
  readonly scope: Scope.Scope
  readonly address: string
  /** Completes with the reason once the connection is gone. */
  readonly ended: Effect.Effect<AmqpError>
  /** What the connection last complained about, if it did. */
  readonly fault: () => unknown
}

export interface ConnectionOptions {
  readonly endpoint: Endpoint
  /** "stoker/<instance>/publish": what operators see in the broker's list. */
  readonly name: string
  /** Works on the connection until it has ended; failing closes it. */
  readonly session: (link: Link) => Effect.Effect<never, AmqpError>
  readonly onUp: Effect.Effect<void>
  readonly onDown: (error: AmqpError) => Effect.Effect<void>
  readonly onBlocked: (reason: string | undefined) => void
}

/** A connection that lived this long was a success: the next attempt comes soon again. */
const healthyAfter = Duration.seconds(5)

/**
 * One connection's supervised life: connects, lets the session work, and starts again when it ends, for ever. Never a
 * busy loop: between two attempts there is always a wait. A warning once per change, repetitions at debug level.
 */
export const supervise = Effect.fnUntraced(function*(options: ConnectionOptions) {
  let attempt = 0
  let warned = ""
  const lost = Effect.fnUntraced(function*(error: AmqpError, up: boolean) {
    yield* options.onDown(error)
    const repeated = !up && warned === error.message
    warned = error.message
    yield* repeated ? Effect.logDebug(error.message) : Effect.logWarning(error.message)
  })
  const once = Effect.gen(function*() {
    let up = false
    const began = yield* monotonicMs
    const error = yield* Effect.scoped(Effect.gen(function*() {
      const link = yield* open(options)
      up = true
      yield* options.onUp
      yield* Effect.logInfo(`connected to RabbitMQ ${options.endpoint.address} as ${options.name}`)
      return yield* Effect.raceFirst(Effect.flip(options.session(link)), link.ended)
    })).pipe(
      Effect.catch(Effect.succeed),
      // A bug in a session must not end the supervision in silence.
      Effect.catchDefect((defect) =>
        Effect.succeed(
          Fault.at(options.endpoint.address)("Closed", `connection ${options.name}`, "Please report this", defect)
        )
      )
    )
    yield* lost(error, up)
    const lived = (yield* monotonicMs) - began
    attempt = up && lived >= Duration.toMillis(healthyAfter) ? 0 : attempt
    yield* Backoff.sleep(attempt)
    attempt += 1
  })
  return yield* Effect.forever(once)
})

const remedyFor = (cause: unknown, address: string): string => {
  const said = Fault.words(cause)
  if (said.includes("ACCESS_REFUSED")) return "Check user and password in AMQP_URL"
  // amqplib swallows the broker's words when it refuses a virtual host, and says only what it waited for.
  return said.includes("ConnectionOpenOk") || Fault.replyCode(cause) === 530
    ? "Check the virtual host in AMQP_URL and this user's permissions on it"
    : `Is RabbitMQ running at ${address}? Check AMQP_URL`
}

const open = Effect.fnUntraced(function*({ endpoint, name, onBlocked }: ConnectionOptions) {
  const error = Fault.at(endpoint.address)
  const ended = Deferred.makeUnsafe<AmqpError>()
  let model: amqplib.ChannelModel | undefined
  let fault: unknown
  // Undo before do, and last of all the socket: a dial still under way ends with it, and so does a connection whose
  // closing the broker does not answer, or which an alarm would keep half open.
  const signal = yield* Effect.abortSignal
  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => {
      const connected = model
      return connected === undefined
        ? Effect.void
        : Farewell.say(`closing connection ${name}`, () => connected.close(), Deferred.await(ended))
    })
  )
  // Closes before the connection does, all channels side by side.
  const scope = yield* Scope.fork(yield* Effect.scope, "parallel")
  const adopt = (connected: amqplib.ChannelModel) => {
    model = connected
    // 'close' follows with the same error; without a listener Node would end the process.
    connected.on("error", (cause) => {
      fault = cause
    })
    connected.on("close", (cause) => {
      fault ??= cause
      const why = cause ?? new Error("the connection was closed")
      Deferred.doneUnsafe(
        ended,
        Effect.succeed(error("Closed", `connection ${name}`, remedyFor(why, endpoint.address), why))
      )
    })
    connected.on("handler-error", (cause) => {
      fault = cause
    })
    connected.on("blocked", (reason) => onBlocked(reason))
    connected.on("unblocked", () => onBlocked(undefined))
  }
  const connected = yield* Effect.callback<amqplib.ChannelModel, AmqpError>((resume) => {
    const fail = (cause: unknown) =>
      resume(Effect.fail(error("Connect", `connection ${name}`, remedyFor(cause, endpoint.address), cause)))
    dial(endpoint, name, signal).then((connected) => {
      adopt(connected)
      if (signal.aborted) connected.close().catch(() => {})
      resume(Effect.succeed(connected))
    }, fail)
  }).pipe(
    // amqplib's own limit is on silence, this one on the whole handshake.
    Effect.timeoutOrElse({
      duration: Duration.times(endpoint.connectTimeout, 2),
      orElse: () =>
        Effect.fail(
          error(
            "Connect",
            `connection ${name}`,
            remedyFor(undefined, endpoint.address),
            new Error("no complete handshake in time")
          )
        )
    })
  )
  return {
    model: connected,
    scope,
    address: endpoint.address,
    ended: Deferred.await(ended),
    fault: () => fault
  } satisfies Link
})

const dial = (endpoint: Endpoint, name: string, signal: AbortSignal) => {
  const options = {
    ...endpoint.tls,
    // Nagle on would cost 40 ms per confirm.
    noDelay: true,
    keepAlive: true,
    timeout: Duration.toMillis(endpoint.connectTimeout),
    clientProperties: { connection_name: name },
    // Reaches the socket, which amqplib does not give out.
    signal
  }
  return amqplib.connect(Redacted.value(endpoint.url), options)
}

/** A channel in a scope of its own below the connection's. */
export interface OpenChannel<C extends amqplib.Channel> {
  readonly channel: C
  /** The channel is gone: with the broker's words, or without if it ended with its connection. */
  readonly ended: Effect.Effect<unknown>
  readonly isOpen: () => boolean
  /** The broker's words, once it has closed the channel. */
  readonly fault: () => unknown
  /** Sends what is still to be sent, then closes. Never fails, always ends. */
  readonly close: Effect.Effect<void>
}

/** Opens a channel that closes before its connection does. */
export const openChannel = Effect.fnUntraced(function*<C extends amqplib.Channel>(
  link: Link,
  make: (model: amqplib.ChannelModel) => Promise<C>
) {
  const ended = Deferred.makeUnsafe<unknown>()
  let cause: unknown
  let isOpen = true
  let isAbandoned = false
  const scope = yield* Scope.fork(link.scope)
  let opened: C | undefined
  yield* Scope.addFinalizer(
    scope,
    Effect.suspend(() => {
      isAbandoned = true
      const channel = opened
      return channel === undefined || !isOpen
        ? Effect.void
        : Farewell.say("closing a channel", () => channel.close(), Deferred.await(ended))
    })
  )
  const channel = yield* Effect.tryPromise({
    try: () =>
      make(link.model).then((channel) => {
        opened = channel
        channel.on("error", (error) => {
          cause = error
        })
        channel.on("handler-error", (error) => {
          cause = error
        })
        channel.on("close", () => {
          isOpen = false
          Deferred.doneUnsafe(ended, Effect.succeed(cause))
        })
        if (isAbandoned) channel.close().catch(() => {})
        return channel
      }),
    catch: (cause) =>
      Fault.at(link.address)("Closed", "opening a channel", `Is RabbitMQ running at ${link.address}?`, cause)
  }).pipe(Effect.onError(() => Scope.close(scope, Exit.void)))
  return {
    channel,
    ended: Effect.raceFirst(Deferred.await(ended), Effect.asVoid(link.ended)),
    isOpen: () => isOpen,
    fault: () => cause,
    close: Scope.close(scope, Exit.void)
  } satisfies OpenChannel<C>
})
