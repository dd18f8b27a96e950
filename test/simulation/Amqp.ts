/**
 * A worker's transport over the simulated broker: two connections that come and go, the real window for what is
 * published, buffers for what is delivered. Everything takes its time on the way, in order for each connection.
 */
import { Deferred, Effect, Layer, Queue, Schedule, Stream, SubscriptionRef } from "effect"
import {
  Amqp,
  type AmqpDelivery,
  AmqpError,
  type AmqpMessage,
  type AmqpStatus,
  type ConsumeOptions,
  type Topology
} from "../../src/layers/amqp/Amqp.ts"
import * as Declare from "../../src/layers/amqp/Declare.ts"
import * as DeliveryBuffer from "../../src/layers/amqp/DeliveryBuffer.ts"
import * as Window from "../../src/layers/amqp/Window.ts"
import type { Connection, Held } from "./Broker.ts"
import type { Mortal, World } from "./World.ts"

const failure = (reason: AmqpError["reason"], operation: string, detail: string) =>
  new AmqpError({ operation, reason, broker: "simulated", detail, remedy: "none" })

const closed = failure("Closed", "publishing", "the connection was closed by us")

/** One connection that is made again for ever. What is sent on it arrives in order, or not at all. */
const makeLine = (world: World, party: Mortal, name: string, onUp: (line: Connection) => void, onDown: () => void) => {
  const { broker, dice, outside, time } = world
  let connection: Connection | undefined
  let attempts = 0
  let isEnded = false
  let lastOutMs = 0
  let lastInMs = 0

  const dial = () => {
    const waitMs = attempts === 0
      ? dice.between(1, 10)
      : Math.min(10_000, 100 * 2 ** attempts) * (0.5 + dice.below(50) / 100)
    attempts += 1
    time.after(party, waitMs, () => {
      if (isEnded) return
      connection = broker.connect(`${party.name}/${name}`, lost)
      if (connection === undefined) return dial()
      attempts = 0
      onUp(connection)
    })
  }
  const lost = () => {
    connection = undefined
    if (!party.isAlive) return
    onDown()
    dial()
  }
  dial()

  return {
    current: () => connection,
    /** To the broker. A dead worker's last words may still arrive, as long as the broker has its connection. */
    out: (from: Connection, run: () => void) => {
      lastOutMs = Math.max(lastOutMs, time.now() + dice.below(4))
      time.after(outside, lastOutMs - time.now(), () => from.isOpen && run())
    },
    /** From the broker. */
    in: (from: Connection, ms: number, run: () => void) => {
      lastInMs = Math.max(lastInMs, time.now() + ms)
      time.after(party, lastInMs - time.now(), () => from.isOpen && run())
    },
    end: () => {
      isEnded = true
      if (connection !== undefined) broker.close(connection)
    }
  }
}

type Line = ReturnType<typeof makeLine>

/** Publishes through the real window. */
const makePublisher = (world: World, party: Mortal, registered: () => Topology) => {
  const { broker, dice, faults, time } = world
  const window = Window.make(
    { messages: 256, bytes: 32 * 1024 * 1024, strikes: 3, nacks: 5 },
    {
      impossible: () => failure("Invalid", "publishing", "impossible"),
      closesChannel: ({ exchange }) => failure("Channel", "publishing", `the channel closes: no exchange ${exchange}?`),
      nacked: () => failure("Nacked", "publishing", "the broker refused it")
    },
    (resume) => void time.after(party, 250, resume)
  )
  /** A channel: what is under way on it is lost with it. */
  let wire: (Window.Wire & { isOpen: boolean }) | undefined

  const attach = (connection: Connection) => {
    let tags = 0
    const own = {
      isOpen: true,
      send: (message: AmqpMessage) => {
        if (!own.isOpen || !connection.isOpen) throw new Window.Gone("the channel is closed")
        const tag = ++tags
        line.out(
          connection,
          () => broker.whenUnblocked(() => own.isOpen && connection.isOpen && arrive(own, connection, tag, message))
        )
        return true
      }
    }
    wire = own
    window.attach(own)
  }
  const closeChannel = (connection: Connection, fault: { readonly cause: unknown } | undefined) => {
    const broken = wire
    if (broken === undefined) return
    broken.isOpen = false
    line.in(connection, dice.below(3), () => {
      window.detach(broken, fault)
      wire = undefined
      time.after(
        party,
        dice.between(100, 200),
        () => connection.isOpen && line.current() === connection && attach(connection)
      )
    })
  }
  const arrive = (on: Window.Wire, connection: Connection, tag: number, message: AmqpMessage) => {
    // A queue that refuses publishes when it cannot take them: ours do, and what is refused goes again, later.
    if (message.exchange.startsWith("stoker.wait") && dice.chance(faults().nack)) {
      return line.in(connection, dice.below(5), () => on === wire && window.nack(tag, false))
    }
    if (dice.chance(faults().channelClose)) {
      return closeChannel(connection, dice.chance(0.5) ? undefined : { cause: { code: 541 } })
    }
    const published = broker.publish(message)
    if (published === "no exchange") return closeChannel(connection, { cause: { code: 404 } })
    const lateMs = dice.chance(faults().lateConfirm) ? dice.between(100, 4000) : dice.below(5)
    line.in(connection, lateMs, () => {
      if (on !== wire) return
      if (published === "unroutable") window.returned((candidate) => candidate === message)
      window.confirm(tag, false)
    })
  }
  const line: Line = makeLine(world, party, "publish", (connection) => {
    broker.declare(Declare.shareable(registered()))
    window.block(broker.isBlocked())
    broker.whenUnblocked(() => party.isAlive && line.current() === connection && window.block(false))
    attach(connection)
  }, () => {
    const broken = wire
    wire = undefined
    if (broken === undefined) return
    broken.isOpen = false
    window.detach(broken)
  })
  return { window, line }
}

interface Subscriber {
  readonly subscribe: () => void
  readonly lose: () => void
  readonly stop: Effect.Effect<void>
}

type Settle = (how: "ack" | "reject" | "giveBack") => Effect.Effect<void>

const deliveryOf = (queue: string, { message, redelivered }: Held, settle: Settle): AmqpDelivery => ({
  body: message.body,
  properties: { headers: {}, ...message.properties },
  exchange: message.exchange,
  routingKey: message.routingKey,
  queue,
  redelivered,
  ack: settle("ack"),
  reject: settle("reject"),
  giveBack: settle("giveBack")
})

const make = (world: World, party: Mortal) =>
  Effect.gen(function*() {
    const { broker, dice, faults, time } = world
    let registered: Topology = {}
    let isClosed = false
    const subscribers = new Set<Subscriber>()
    const ended = new Set<Subscriber>()
    const arrived = new Set<() => void>()
    const publisher = makePublisher(world, party, () => registered)

    const line = makeLine(world, party, "consume", (connection) => {
      broker.declare(registered, connection)
      for (const resume of Array.from(arrived)) resume()
      for (const { subscribe } of subscribers) subscribe()
    }, () => {
      for (const { lose } of [...subscribers, ...ended]) lose()
      ended.clear()
    })

    const subscriberOf = (
      queue: string,
      { prefetch, topology }: ConsumeOptions,
      buffer: DeliveryBuffer.DeliveryBuffer
    ) => {
      let current: { readonly cancel: () => void; readonly drop: () => void } | undefined
      /** The channel: deliveries of an older one are void. */
      let epoch = 0
      let isStopping = false
      const again = () => time.after(party, dice.between(50, 1000), () => self.subscribe())
      const receive = (connection: Connection, mine: number, held: Held) =>
        line.in(connection, dice.below(4), () => {
          if (mine !== epoch) return
          let isSettled = false
          const delivery = deliveryOf(queue, held, (how) =>
            world.step(
              party,
              how,
              Effect.sync(() => {
                if (isSettled || mine !== epoch) return
                isSettled = true
                line.out(connection, () => held.settle(how))
              })
            ))
          if (isStopping) line.out(connection, () => held.settle("giveBack"))
          else Queue.offerUnsafe(buffer, delivery)
          if (dice.chance(faults().consumerClose)) {
            world.say(party, `its channel of ${queue} closes`)
            self.lose()
            again()
          }
        })
      const self: Subscriber = {
        subscribe: () => {
          const connection = line.current()
          if (current !== undefined || connection === undefined || isStopping) return
          if (topology !== undefined) broker.declare(topology, connection)
          const mine = ++epoch
          current = broker.consume(connection, queue, prefetch, (held) => receive(connection, mine, held), () => {
            self.lose()
            again()
          })
          if (current === undefined) again()
        },
        lose: () => {
          epoch += 1
          DeliveryBuffer.leftovers(buffer)
          const lost = current
          current = undefined
          lost?.drop()
        },
        stop: Effect.suspend(() => {
          isStopping = true
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
        return Stream.fromEffectRepeat(Queue.take(buffer))
      }))

    const closing = yield* Deferred.make<never, AmqpError>()
    /** On the consuming connection, once it is there; a loss on the way is tried again. */
    const declare = (topology: Topology) =>
      Effect.callback<void, AmqpError>((resume) => {
        const connection = line.current()
        if (connection === undefined) {
          const done = () => {
            arrived.delete(done)
            resume(Effect.fail(failure("Closed", "declaring", "just connected")))
          }
          arrived.add(done)
          return Effect.sync(() => arrived.delete(done))
        }
        line.out(connection, () => {
          broker.declare(topology, connection)
          line.in(connection, dice.below(4), () => resume(Effect.void))
        })
        const late = time.after(party, 10_000, () => resume(Effect.fail(failure("Closed", "declaring", "no answer"))))
        return Effect.sync(late)
      }).pipe(
        Effect.retry({ while: () => !isClosed, schedule: Schedule.spaced("100 millis") }),
        Effect.raceFirst(Deferred.await(closing))
      )

    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        publisher.window.close(closed)
        publisher.line.end()
        line.end()
      })
    )
    yield* Effect.addFinalizer(() =>
      Effect.gen(function*() {
        isClosed = true
        yield* Deferred.fail(closing, closed)
        for (const subscriber of Array.from(subscribers)) yield* subscriber.stop
        if (publisher.line.current() !== undefined) yield* Effect.timeoutOption(publisher.window.settled, "2 seconds")
        // What was acked is on its way.
        yield* Effect.sleep(5)
      })
    )

    const enqueue = (message: AmqpMessage) =>
      world.step(party, `publish to ${message.exchange}/${message.routingKey}`, publisher.window.enqueue(message))
    const status = yield* SubscriptionRef.make<AmqpStatus>({
      connected: true,
      publishing: true,
      consuming: true,
      queues: [],
      blocked: undefined,
      lastError: undefined
    })
    return Amqp.of({
      publish: (message) => Effect.flatten(enqueue(message)),
      enqueue,
      consume,
      ensure: (topology) =>
        Effect.andThen(declare(topology), Effect.sync(() => void (registered = Declare.merge(registered, topology)))),
      declareOrUse: (queue) => declare({ queues: [queue] }),
      status: SubscriptionRef.get(status),
      changes: SubscriptionRef.changes(status)
    })
  })

export const layer = (world: World, party: Mortal): Layer.Layer<Amqp> => Layer.effect(Amqp, make(world, party))
