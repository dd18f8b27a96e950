import type { Scope } from "effect"
import { Duration, Effect, Queue, Stream } from "effect"
import { monotonicMs } from "../Now.ts"
import type { AmqpDelivery, AmqpError, ConsumeOptions, Topology } from "./Amqp.ts"
import * as Backoff from "./Backoff.ts"
import type { Link } from "./Connection.ts"
import * as DeliveryBuffer from "./DeliveryBuffer.ts"
import * as Fault from "./Fault.ts"
import * as Subscription from "./Subscription.ts"

/** Consumes over whatever consuming connection there is. */
export interface Consumer {
  readonly consume: (queue: string, options: ConsumeOptions) => Stream.Stream<AmqpDelivery>
  /** Ends every stream, giving back what was not pulled. Deliveries can still be settled. */
  readonly stop: Effect.Effect<void>
}

/** The consuming connection, and how to make sure that a queue is there. */
export interface Consuming {
  readonly link: Link
  readonly ensure: (topology: Topology) => Effect.Effect<void, AmqpError>
}

/** A subscription that lived this long was a success: the next one comes soon again. */
const healthyAfter = Duration.seconds(5)

export const make = (options: {
  readonly instance: string
  /** Waits for the connection; fails only once all is closed. */
  readonly current: Effect.Effect<Consuming, AmqpError>
  /** Hears of every subscription that begins or ends. */
  readonly onChange: (queues: ReadonlyArray<string>) => Effect.Effect<void>
}): Consumer => {
  const subscribed = new Map<string, number>()
  const noteQueue = (queue: string, by: 1 | -1) =>
    Effect.suspend(() => {
      subscribed.set(queue, (subscribed.get(queue) ?? 0) + by)
      return options.onChange([...subscribed].flatMap(([name, count]) => count > 0 ? [name] : []))
    })
  const stops = new Set<Effect.Effect<void>>()
  let isClosed = false
  let tags = 0

  /** Keeps one consumer subscribed until the scope closes or `stop`; what it gets is in the buffer. */
  const subscribe = Effect.fnUntraced(function*(
    queue: string,
    { exclusive, prefetch, topology }: ConsumeOptions,
    buffer: DeliveryBuffer.DeliveryBuffer
  ): Effect.fn.Return<{ readonly stop: Effect.Effect<void> }, never, Scope.Scope> {
    const tag = `stoker.${options.instance}.${++tags}`
    let current: Subscription.Subscription | undefined
    let isStopping = false
    let warned = ""

    const once = Effect.gen(function*() {
      const { ensure, link } = yield* options.current
      if (topology !== undefined) yield* ensure(topology)
      const subscription = yield* Subscription.open(link, {
        queue,
        prefetch,
        exclusive: exclusive ?? false,
        tag,
        accept: (delivery) => !isStopping && Queue.offerUnsafe(buffer, delivery),
        onDead: () => void DeliveryBuffer.leftovers(buffer)
      })
      if (isStopping) return yield* subscription.retire
      current = subscription
      const lived = Effect.acquireUseRelease(
        noteQueue(queue, 1),
        () => subscription.ended,
        () => noteQueue(queue, -1)
      )
      const reason = yield* Effect.andThen(subscription.start, lived).pipe(
        Effect.ensuring(Effect.suspend(() => isStopping ? Effect.void : finish(subscription)))
      )
      warned = reason === undefined ? warned : yield* say(link, Fault.words(reason))
    })

    const say = Effect.fnUntraced(function*(link: Link, why: string) {
      yield* Effect.logWarning(`RabbitMQ ${link.address} ended the consumer of queue ${queue}: ${why}`)
      return why
    })

    /** Nothing new from it; what nobody pulled goes back; closes once what was pulled is settled. */
    const finish = Effect.fnUntraced(function*(subscription: Subscription.Subscription) {
      current = undefined
      yield* subscription.cancel
      yield* Effect.forEach(DeliveryBuffer.leftovers(buffer), (delivery) => delivery.giveBack, { discard: true })
      yield* subscription.retire
    })

    const stop = Effect.suspend(() => {
      isStopping = true
      return current === undefined ? Effect.void : finish(current)
    }).pipe(Effect.andThen(Effect.sync(() => Queue.endUnsafe(buffer))))

    yield* Effect.addFinalizer(() => stop)
    yield* Effect.gen(function*() {
      let attempt = 0
      const isWanted = () => !isStopping
      while (isWanted()) {
        const began = yield* monotonicMs
        yield* once.pipe(Effect.catch(Effect.fnUntraced(function*(error) {
          const repeated = error.message === warned || error.reason === "Closed"
          warned = error.message
          yield* repeated ? Effect.logDebug(error.message) : Effect.logWarning(error.message)
        })))
        const lived = (yield* monotonicMs) - began
        attempt = lived >= Duration.toMillis(healthyAfter) ? 0 : attempt
        yield* Backoff.sleep(attempt)
        attempt += 1
      }
    }).pipe(
      Effect.tapCause((cause) => Effect.logError(`consumer of queue ${queue} broke down`, cause)),
      Effect.forkScoped
    )
    return { stop }
  })

  return {
    consume: (queue, consumeOptions) =>
      Stream.unwrap(Effect.gen(function*() {
        if (isClosed) return Stream.empty
        const prefetch = Math.min(Math.max(1, Math.trunc(consumeOptions.prefetch)), 65_535)
        const buffer = yield* DeliveryBuffer.make(prefetch)
        const { stop } = yield* subscribe(queue, { ...consumeOptions, prefetch }, buffer)
        yield* Effect.acquireRelease(Effect.sync(() => stops.add(stop)), () => Effect.sync(() => stops.delete(stop)))
        // One at a time: what is pulled is about to be worked on, and what is not can be given back.
        return Stream.fromEffectRepeat(Queue.take(buffer))
      })),
    stop: Effect.suspend(() => {
      isClosed = true
      return Effect.forEach(Array.from(stops), (stop) => stop, { concurrency: "unbounded", discard: true })
    })
  }
}
