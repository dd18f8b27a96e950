import type { Redacted } from "effect"
import { Deferred, Duration, Effect, Layer, Metric, Option, Schedule, Stream, SubscriptionRef } from "effect"
import type { ConnectionOptions } from "node:tls"
import { metrics } from "../telemetry/Metrics.ts"
import type { AmqpError, AmqpStatus, Topology } from "./Amqp.ts"
import { Amqp } from "./Amqp.ts"
import * as Connection from "./Connection.ts"
import * as Consumer from "./Consumer.ts"
import * as Declare from "./Declare.ts"
import * as Endpoint from "./Endpoint.ts"
import * as Fault from "./Fault.ts"
import * as Publisher from "./Publisher.ts"

export interface AmqpOptions {
  /** amqp://user:password@host:port/vhost, or amqps. */
  readonly url: Redacted.Redacted<string>
  /** Names the connections and consumers in the broker's lists. */
  readonly instance: string
  /** Ensured on every connection before use, as if by `ensure`. */
  readonly topology?: Topology
  /** Default 10 s; a dead broker is noticed after two to three of them. */
  readonly heartbeat?: Duration.Input
  /** Default 5 s. */
  readonly connectTimeout?: Duration.Input
  /** Unconfirmed messages kept for sending again. Default 1024. */
  readonly windowMessages?: number
  /** Their bodies together, bytes. Default 32 MiB. */
  readonly windowBytes?: number
  /** Bytes of one body. Default 16 MiB, the limit of RabbitMQ 4. */
  readonly maxMessageBytes?: number
  /** For amqps: CA, client certificate and the like. */
  readonly tls?: ConnectionOptions
}

/** The consuming connection, which also declares: an alarm blocks only connections that publish. */
interface Consuming extends Declare.Declarer {
  readonly link: Connection.Link
}

const MiB = 1024 * 1024

const make = Effect.fnUntraced(function*(options: AmqpOptions) {
  const endpoint = yield* Endpoint.make({
    url: options.url,
    connectTimeout: Duration.fromInputUnsafe(options.connectTimeout ?? "5 seconds"),
    heartbeat: Duration.fromInputUnsafe(options.heartbeat ?? "10 seconds"),
    tls: options.tls
  })
  const context = yield* Effect.context<never>()
  const status = yield* SubscriptionRef.make<AmqpStatus>({
    connected: false,
    publishing: false,
    consuming: false,
    queues: [],
    blocked: undefined,
    lastError: undefined
  })
  const note = (change: Partial<AmqpStatus>) =>
    SubscriptionRef.update(status, (now) => {
      const next = { ...now, ...change }
      const connected = next.publishing && next.consuming
      // Here, so that gauges and status change in one order.
      metrics.brokerConnected.series({}).updateUnsafe(connected ? 1 : 0, context)
      metrics.brokerBlocked.series({}).updateUnsafe(next.blocked === undefined ? 0 : 1, context)
      return { ...next, connected }
    })
  /** Another one after the first is a reconnect. */
  const connects = (connection: "publish" | "consume") =>
    Metric.update(metrics.brokerConnects.series({ connection }), 1)
  // Registered first, so the last to run.
  yield* Effect.addFinalizer(() => note({ publishing: false, consuming: false, blocked: undefined }))
  const fork = Effect.runForkWith(yield* Effect.context())
  const told = new Set<string>()
  let registered: Topology = options.topology ?? {}

  const ensureRegistered = (declarer: Declare.Declarer, topology: Topology) =>
    declarer.ensure(topology).pipe(
      // What is missing then shows itself where it is used, with its own error; what is there can be used.
      Effect.catchIf((error) => error.reason === "Topology", (error) => Effect.logWarning(error.message))
    )

  const publisher = yield* Publisher.make({
    address: endpoint.address,
    messages: options.windowMessages ?? 1024,
    bytes: options.windowBytes ?? 32 * MiB,
    maxMessageBytes: options.maxMessageBytes ?? 16 * MiB
  })
  const setBlocked = (reason: string | undefined) => {
    publisher.block(reason !== undefined)
    fork(
      Effect.andThen(
        note({ blocked: reason }),
        reason === undefined
          ? Effect.logInfo(`RabbitMQ ${endpoint.address} takes messages again`)
          : Effect.logWarning(`RabbitMQ ${endpoint.address} holds publishing back: ${reason}`)
      )
    )
  }
  const publishingLife = Connection.supervise({
    endpoint,
    name: `stoker/${options.instance}/publish`,
    onUp: Effect.sync(() => publisher.block(false)).pipe(
      Effect.andThen(connects("publish")),
      Effect.andThen(note({ publishing: true, blocked: undefined }))
    ),
    onDown: (lastError) => note({ publishing: false, blocked: undefined, lastError }),
    onBlocked: setBlocked,
    session: (link) =>
      Effect.suspend(() => ensureRegistered(Declare.make(link, told), Declare.shareable(registered))).pipe(
        Effect.andThen(publisher.session(link))
      )
  })

  const closing = yield* Deferred.make<never, AmqpError>()
  const consuming = yield* SubscriptionRef.make(Option.none<Consuming>())
  const current = Effect.suspend(() => {
    const now = SubscriptionRef.getUnsafe(consuming)
    return Option.isSome(now) ? Effect.succeed(now.value) : Effect.raceFirst(arrives, Deferred.await(closing))
  })
  const arrives = SubscriptionRef.changes(consuming).pipe(
    Stream.filter(Option.isSome),
    Stream.map((some) => some.value),
    Stream.runHead,
    Effect.flatMap(Option.match({ onNone: () => Effect.never, onSome: Effect.succeed<Consuming> }))
  )
  const consumingLife = Connection.supervise({
    endpoint,
    name: `stoker/${options.instance}/consume`,
    onUp: Effect.andThen(connects("consume"), note({ consuming: true })),
    onDown: (lastError) => note({ consuming: false, lastError }),
    onBlocked: () => {},
    session: (link) =>
      Effect.suspend(() => {
        const declarer = Declare.make(link, told)
        return ensureRegistered(declarer, registered).pipe(
          Effect.andThen(SubscriptionRef.set(consuming, Option.some({ link, ...declarer }))),
          Effect.andThen(Effect.never),
          Effect.ensuring(SubscriptionRef.set(consuming, Option.none()))
        )
      })
  })
  // One fiber, so that closing ends both side by side.
  yield* Effect.all([publishingLife, consumingLife], { concurrency: "unbounded", discard: true }).pipe(
    Effect.tapCause((cause) => Effect.logError("the supervision of RabbitMQ connections broke down", cause)),
    Effect.forkScoped
  )

  const consumer = Consumer.make({ instance: options.instance, current, onChange: (queues) => note({ queues }) })
  // First of all on closing: no new work, then the confirms that are on their way; connections close after that.
  yield* Effect.addFinalizer(() =>
    Effect.all([
      Deferred.fail(
        closing,
        Fault.at(endpoint.address)(
          "Closed",
          "declaring",
          "It was closed by us: declare before that",
          new Error("closed")
        )
      ),
      consumer.stop,
      Effect.suspend(() => SubscriptionRef.getUnsafe(status).publishing ? publisher.drain : Effect.void)
    ], { concurrency: "unbounded", discard: true })
  )

  /** Until it is done or refused, over as many connections as it takes. */
  const declaring = (declare: (now: Consuming) => Effect.Effect<void, AmqpError>) =>
    Effect.flatMap(current, declare).pipe(
      Effect.retry({
        while: (error) => error.reason === "Closed" && !Deferred.isDoneUnsafe(closing),
        schedule: Schedule.spaced("100 millis")
      })
    )

  return Amqp.of({
    publish: publisher.publish,
    enqueue: publisher.enqueue,
    consume: consumer.consume,
    ensure: Effect.fn("Amqp.ensure")(function*(topology) {
      yield* declaring((now) => now.ensure(topology))
      registered = Declare.merge(registered, topology)
    }),
    declareOrUse: (queue) => declaring((now) => now.declareOrUse(queue)),
    status: SubscriptionRef.get(status),
    changes: SubscriptionRef.changes(status)
  })
})

/**
 * AMQP through amqplib: one connection for publishing, one for consuming and declaring, both reconnecting for ever.
 * Builds at once, broker or not; fails only for a URL that cannot be one.
 */
export const layer = (options: AmqpOptions): Layer.Layer<Amqp, AmqpError> => Layer.effect(Amqp, make(options))
