import { Context, Deferred, Effect, FiberSet, Layer, Queue, Stream, SubscriptionRef } from "effect"
import type { AmqpDelivery, AmqpMessage, AmqpStatus, ConsumeOptions, PublishReceipt, Topology } from "./Amqp.ts"
import { Amqp, AmqpError } from "./Amqp.ts"
import * as DeliveryBuffer from "./DeliveryBuffer.ts"
import * as MemoryBroker from "./MemoryBroker.ts"

/** The hand on the test broker: what a real one does to us. */
export class AmqpTest extends Context.Service<AmqpTest, {
  /** Connections gone: unsettled deliveries go back, publishes wait. */
  readonly disconnect: Effect.Effect<void>
  readonly connect: Effect.Effect<void>
  /** As if by another client: consumers of it are cancelled. */
  readonly deleteQueue: (queue: string) => Effect.Effect<void>
  /** Messages ready and unacked, or undefined if there is no such queue. */
  readonly look: (queue: string) => Effect.Effect<{ readonly ready: number; readonly unacked: number } | undefined>
}>()("stoker/layers/amqp/AmqpTest") {}

interface Waiting {
  readonly message: AmqpMessage
  readonly done: Deferred.Deferred<PublishReceipt, AmqpError>
}

interface Subscriber {
  readonly subscribe: () => void
  readonly lose: () => void
  readonly stop: Effect.Effect<void>
}

const make = Effect.gen(function*() {
  const inTime = yield* FiberSet.makeRuntime<never, void>()
  const broker = MemoryBroker.make((millis, run) => void inTime(Effect.andThen(Effect.sleep(millis), Effect.sync(run))))
  const waiting: Array<Waiting> = []
  const subscribers = new Set<Subscriber>()
  // Their streams are over, what was pulled from them may still be held.
  const ended = new Set<Subscriber>()
  const arrived = new Set<() => void>()
  let registered: ReadonlyArray<Topology> = []
  let isClosed = false
  const status = yield* SubscriptionRef.make<AmqpStatus>(statusOf(true))
  const isUp = () => SubscriptionRef.getUnsafe(status).connected

  let consumed: ReadonlyArray<string> = []
  const noteQueue = (change: (queues: ReadonlyArray<string>) => ReadonlyArray<string>) =>
    SubscriptionRef.update(status, (now) => {
      consumed = change(consumed)
      return { ...now, queues: now.connected ? consumed : [] }
    })

  const deliver = ({ done, message }: Waiting) => {
    const published = broker.publish(message)
    const operation = `publishing to exchange ${message.exchange} with key ${message.routingKey}`
    Deferred.doneUnsafe(
      done,
      published === "no exchange"
        ? Effect.fail(failure("Channel", operation, "no such exchange", `Declare exchange ${message.exchange}`))
        : Effect.succeed({ routed: published === "routed" || message.mandatory === false })
    )
  }
  // A queue may have appeared: whoever waited for it tries again.
  const declare = (topology: Topology) => {
    broker.declare(topology)
    for (const subscriber of subscribers) subscriber.subscribe()
  }
  const whenUp: Effect.Effect<void, AmqpError> = Effect.callback((resume) => {
    if (isClosed) return resume(Effect.fail(failure("Closed", "declaring", "closed", "Declare before that")))
    if (isUp()) return resume(Effect.void)
    const done = () => {
      arrived.delete(done)
      resume(Effect.void)
    }
    arrived.add(done)
    return Effect.sync(() => arrived.delete(done))
  })

  const enqueue = (message: AmqpMessage) =>
    Effect.sync(() => {
      if (isClosed) return Effect.fail(failure("Closed", "publishing", "closed", "Publish before that"))
      const entry: Waiting = { message, done: Deferred.makeUnsafe() }
      if (isUp()) deliver(entry)
      else waiting.push(entry)
      return Deferred.await(entry.done)
    })

  const subscriberOf = (queue: string, options: ConsumeOptions, buffer: DeliveryBuffer.DeliveryBuffer) => {
    let current: { readonly cancel: () => void; readonly drop: () => void } | undefined
    const self: Subscriber = {
      subscribe: () => {
        if (current !== undefined || !isUp()) return
        if (options.topology !== undefined) broker.declare(options.topology)
        current = broker.consume(
          queue,
          options.prefetch,
          (held) => Queue.offerUnsafe(buffer, deliveryOf(queue, held)),
          () => {
            self.lose()
            self.subscribe()
          }
        )
      },
      lose: () => {
        DeliveryBuffer.leftovers(buffer)
        const lost = current
        current = undefined
        lost?.drop()
      },
      stop: Effect.suspend(() => {
        current?.cancel()
        subscribers.delete(self)
        ended.add(self)
        return Effect.forEach(DeliveryBuffer.leftovers(buffer), (delivery) => delivery.giveBack, { discard: true })
      }).pipe(Effect.andThen(Effect.sync(() => Queue.endUnsafe(buffer))))
    }
    return self
  }

  const consume = (queue: string, options: ConsumeOptions) =>
    Stream.unwrap(Effect.gen(function*() {
      if (isClosed) return Stream.empty
      const buffer = yield* DeliveryBuffer.make(options.prefetch)
      const subscriber = subscriberOf(queue, options, buffer)
      subscribers.add(subscriber)
      yield* Effect.addFinalizer(() => subscriber.stop)
      subscriber.subscribe()
      yield* Effect.acquireRelease(noteQueue((queues) => [...queues, queue]), () =>
        noteQueue((queues) => queues.filter((_, index) => index !== queues.indexOf(queue))))
      return Stream.fromEffectRepeat(Queue.take(buffer))
    }))

  yield* Effect.addFinalizer(() =>
    Effect.gen(function*() {
      isClosed = true
      for (const subscriber of Array.from(subscribers)) yield* subscriber.stop
      for (const { done } of waiting.splice(0)) {
        Deferred.doneUnsafe(done, Effect.fail(failure("Closed", "publishing", "closed", "Publish before that")))
      }
    })
  )

  const amqp = Amqp.of({
    enqueue,
    publish: (message) => Effect.flatten(enqueue(message)),
    consume,
    ensure: (topology) =>
      Effect.andThen(
        whenUp,
        Effect.sync(() => {
          registered = [...registered, topology]
          declare(topology)
        })
      ),
    declareOrUse: (queue) => Effect.andThen(whenUp, Effect.sync(() => declare({ queues: [queue] }))),
    status: SubscriptionRef.get(status),
    changes: SubscriptionRef.changes(status)
  })
  const control = AmqpTest.of({
    disconnect: Effect.gen(function*() {
      yield* SubscriptionRef.set(status, statusOf(false))
      for (const subscriber of [...subscribers, ...ended]) subscriber.lose()
      ended.clear()
    }),
    connect: Effect.gen(function*() {
      yield* SubscriptionRef.set(status, { ...statusOf(true), queues: consumed })
      for (const topology of registered) broker.declare(topology)
      for (const resume of Array.from(arrived)) resume()
      for (const entry of waiting.splice(0)) deliver(entry)
      for (const subscriber of subscribers) subscriber.subscribe()
    }),
    deleteQueue: (queue) => Effect.sync(() => broker.deleteQueue(queue)),
    look: (queue) => Effect.sync(() => broker.look(queue))
  })
  return Context.make(Amqp, amqp).pipe(Context.add(AmqpTest, control))
})

const statusOf = (connected: boolean): AmqpStatus => ({
  connected,
  publishing: connected,
  consuming: connected,
  queues: [],
  blocked: undefined,
  lastError: connected ? undefined : failure("Closed", "connection", "cut by the test", "Connect it again")
})

const failure = (reason: AmqpError["reason"], operation: string, detail: string, remedy: string) =>
  new AmqpError({ operation, reason, broker: "memory", detail, remedy })

const deliveryOf = (queue: string, held: MemoryBroker.Held): AmqpDelivery => ({
  body: held.message.body,
  properties: MemoryBroker.propertiesOf(held.message),
  exchange: held.message.exchange,
  routingKey: held.message.routingKey,
  queue,
  redelivered: held.redelivered,
  ack: Effect.sync(() => held.settle("ack")),
  reject: Effect.sync(() => held.settle("reject")),
  giveBack: Effect.sync(() => held.settle("giveBack"))
})

/** A broker in memory, connected until told otherwise, with `AmqpTest` to trouble it. */
export const layerTest: Layer.Layer<Amqp | AmqpTest> = Layer.effectContext(make)
