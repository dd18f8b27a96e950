/**
 * A broker that outlives workers: exchanges, queues with lifetimes, dead-lettering and delivery limits, deliveries held
 * by connections, an alarm, restarts. As much of RabbitMQ as Stoker's dialects rely on; it is told what goes wrong.
 */
import type { AmqpMessage, QueueSpec, Topology } from "../../src/layers/amqp/Amqp.ts"
import type { Party, Time } from "./Time.ts"

interface Stored {
  /** Where it belongs in its queue, also after it was given back. */
  readonly position: number
  readonly message: AmqpMessage
  /** How often it came back. */
  returns: number
}

/** A message a consumer has and has not settled. */
export interface Held {
  readonly message: AmqpMessage
  readonly redelivered: boolean
  /** Once; after the connection's end it does nothing. */
  readonly settle: (how: "ack" | "reject" | "giveBack") => void
}

export interface Connection {
  readonly name: string
  isOpen: boolean
  /** The broker's doing: the client hears of it. */
  readonly onClosed: () => void
}

interface Consumer {
  readonly connection: Connection
  readonly prefetch: number
  readonly deliver: (held: Held) => void
  readonly cancelled: () => void
  readonly held: Set<Stored>
}

interface BrokerQueue {
  readonly spec: QueueSpec
  readonly owner: Connection | undefined
  readonly ready: Array<Stored>
  consumers: Array<Consumer>
}

/** What a publish came to. */
export type Published = "routed" | "unroutable" | "no exchange"

export interface BrokerOptions {
  readonly time: Time
  readonly outside: Party
  /** Hears of every message the broker has taken, before anybody gets it. */
  readonly onTaken: (message: AmqpMessage) => void
  readonly say: (what: string) => void
}

const numberOf = (spec: QueueSpec, name: string) => {
  const value = spec.arguments?.[name]
  return typeof value === "number" ? value : undefined
}

export const make = ({ onTaken, outside, say, time }: BrokerOptions) => {
  const exchanges = new Map<string, { readonly type: string; readonly durable: boolean }>()
  const queues = new Map<string, BrokerQueue>()
  let bindings: Array<{ readonly exchange: string; readonly queue: string; readonly routingKey: string }> = []
  const connections = new Set<Connection>()
  const unblocked: Array<() => void> = []
  let positions = 0
  let isUp = true
  let isBlocked = false

  const feed = (name: string) => {
    const queue = queues.get(name)
    if (queue === undefined || !isUp) return
    while (queue.ready.length > 0) {
      const consumer = queue.consumers.find(({ held, prefetch }) => held.size < prefetch)
      if (consumer === undefined) return
      // In turns.
      queue.consumers = [...queue.consumers.filter((one) => one !== consumer), consumer]
      const stored = queue.ready.shift()
      if (stored !== undefined) hand(name, consumer, stored)
    }
  }

  const hand = (name: string, consumer: Consumer, stored: Stored) => {
    consumer.held.add(stored)
    consumer.deliver({
      message: stored.message,
      redelivered: stored.returns > 0,
      settle: (how) => {
        if (!consumer.held.delete(stored)) return
        if (how === "giveBack") back(name, stored)
        if (how === "reject") deadLetter(name, stored, "rejected")
        feed(name)
      }
    })
  }

  const back = (name: string, stored: Stored) => {
    const queue = queues.get(name)
    if (queue === undefined) return
    stored.returns += 1
    if (stored.returns > (numberOf(queue.spec, "x-delivery-limit") ?? Infinity)) {
      return deadLetter(name, stored, "delivery_limit")
    }
    queue.ready.push(stored)
    queue.ready.sort((a, b) => a.position - b.position)
  }

  const deadLetter = (name: string, { message }: Stored, reason: string) => {
    const spec = queues.get(name)?.spec
    const exchange = spec?.arguments?.["x-dead-letter-exchange"]
    if (exchange === undefined) return say(`dropped by ${name} (${reason})`)
    const routingKey = String(spec?.arguments?.["x-dead-letter-routing-key"] ?? message.routingKey)
    const headers = { ...message.properties?.headers, "x-death": [{ reason, queue: name }] }
    publish({ ...message, exchange: String(exchange), routingKey, properties: { ...message.properties, headers } })
  }

  const expire = (name: string, stored: Stored) => {
    const queue = queues.get(name)
    if (queue === undefined) return
    if (!isUp) return void time.after(outside, 100, () => expire(name, stored))
    const at = queue.ready.indexOf(stored)
    if (at < 0) return
    queue.ready.splice(at, 1)
    deadLetter(name, stored, "expired")
  }

  const enqueue = (name: string, message: AmqpMessage) => {
    const queue = queues.get(name)
    if (queue === undefined) return false
    const stored: Stored = { position: ++positions, message, returns: 0 }
    queue.ready.push(stored)
    if (queue.ready.length > (queue.spec.maxLength ?? Infinity)) queue.ready.shift()
    const ttl = numberOf(queue.spec, "x-message-ttl")
    if (ttl !== undefined) time.after(outside, ttl, () => expire(name, stored))
    feed(name)
    return true
  }

  const targets = ({ exchange, routingKey }: AmqpMessage) => {
    if (exchange === "") return [routingKey]
    const type = exchanges.get(exchange)?.type
    return bindings.filter((binding) =>
      binding.exchange === exchange && (type === "fanout" || binding.routingKey === routingKey)
    ).map(({ queue }) => queue)
  }

  const publish = (message: AmqpMessage): Published => {
    if (message.exchange !== "" && !exchanges.has(message.exchange)) return "no exchange"
    onTaken(message)
    const taken = targets(message).filter((name) => enqueue(name, message))
    return taken.length > 0 ? "routed" : "unroutable"
  }

  const removeQueue = (name: string) => {
    queues.delete(name)
    bindings = bindings.filter(({ queue }) => queue !== name)
  }

  /** What a connection or channel held goes back. */
  const drop = (wanted: (consumer: Consumer) => boolean) => {
    for (const [name, queue] of queues) {
      for (const consumer of queue.consumers.filter(wanted)) {
        queue.consumers = queue.consumers.filter((one) => one !== consumer)
        const held = [...consumer.held]
        consumer.held.clear()
        for (const stored of held) back(name, stored)
      }
      feed(name)
    }
  }

  const close = (connection: Connection) => {
    if (!connections.delete(connection)) return
    connection.isOpen = false
    drop((consumer) => consumer.connection === connection)
    for (const [name, { owner }] of queues) if (owner === connection) removeQueue(name)
  }

  const cut = (connection: Connection) => {
    close(connection)
    connection.onClosed()
  }

  const declareQueue = (spec: QueueSpec, owner: Connection | undefined) => {
    if (queues.has(spec.name)) return
    queues.set(spec.name, { spec, owner: spec.exclusive === true ? owner : undefined, ready: [], consumers: [] })
  }

  return {
    isUp: () => isUp,
    isBlocked: () => isBlocked,
    publish,
    connect: (name: string, onClosed: () => void): Connection | undefined => {
      if (!isUp) return undefined
      const connection: Connection = { name, isOpen: true, onClosed }
      connections.add(connection)
      return connection
    },
    close,
    cut,
    connections: (): ReadonlyArray<Connection> => [...connections],
    declare: (topology: Topology, owner?: Connection) => {
      for (const { durable, name, type } of topology.exchanges ?? []) {
        if (!exchanges.has(name)) exchanges.set(name, { type, durable: durable ?? true })
      }
      for (const spec of topology.queues ?? []) declareQueue(spec, owner)
      for (const added of topology.bindings ?? []) {
        const isKnown = bindings.some((known) =>
          known.exchange === added.exchange && known.queue === added.queue && known.routingKey === added.routingKey
        )
        if (!isKnown) bindings.push(added)
      }
    },
    /** Undefined if there is no such queue. */
    consume: (
      connection: Connection,
      name: string,
      prefetch: number,
      deliver: (held: Held) => void,
      cancelled: () => void
    ) => {
      const queue = queues.get(name)
      if (queue === undefined || !connection.isOpen) return undefined
      const consumer: Consumer = { connection, prefetch, deliver, cancelled, held: new Set() }
      queue.consumers.push(consumer)
      feed(name)
      return {
        /** No new deliveries; held ones can still be settled. */
        cancel: () => {
          const { held } = consumer
          queue.consumers = queue.consumers.map((one) => one === consumer ? { ...consumer, held, prefetch: 0 } : one)
        },
        /** As a closed channel. */
        drop: () => drop((one) => one.held === consumer.held)
      }
    },
    /** A memory alarm: what is published waits in its connection. */
    block: (on: boolean) => {
      isBlocked = on
      if (!on) { for (const resume of unblocked.splice(0)) resume() }
    },
    whenUnblocked: (resume: () => void) => void (isBlocked ? unblocked.push(resume) : resume()),
    /** All connections go; with them what is not durable. */
    stop: () => {
      isUp = false
      isBlocked = false
      unblocked.length = 0
      for (const connection of Array.from(connections)) cut(connection)
      for (const [name, { durable }] of exchanges) {
        if (durable) continue
        exchanges.delete(name)
        bindings = bindings.filter(({ exchange }) => exchange !== name)
      }
      for (const [name, { ready, spec }] of queues) {
        if (spec.durable === false) removeQueue(name)
        else ready.splice(0, ready.length, ...ready.filter(({ message }) => message.persistent !== false))
      }
    },
    start: () => {
      isUp = true
      for (const name of queues.keys()) feed(name)
    },
    /** Messages ready and held, of every queue that has any. */
    left: () =>
      [...queues].flatMap(([name, { consumers, ready }]) => {
        const unacked = consumers.reduce((sum, { held }) => sum + held.size, 0)
        return ready.length + unacked === 0 ? [] : [{ name, ready: ready.length, unacked }]
      }),
    /** Ids of the messages its consumers hold; none while others are ready. */
    heldIn: (name: string): ReadonlyArray<string> => {
      const queue = queues.get(name)
      if (queue === undefined || queue.ready.length > 0) return []
      return queue.consumers.flatMap(({ held }) =>
        Array.from(held, ({ message }) => message.properties?.messageId ?? "")
      )
    },
    isIn: (name: string, messageId: string) =>
      queues.get(name)?.ready.some(({ message }) => message.properties?.messageId === messageId) ?? false,
    /** Takes all that waits in a queue: a client that reads it. */
    drainQueue: (name: string): ReadonlyArray<AmqpMessage> =>
      queues.get(name)?.ready.splice(0).map(({ message }) => message) ?? []
  }
}

export type Broker = ReturnType<typeof make>
