import type { AmqpMessage, AmqpProperties, ExchangeSpec, QueueSpec, Topology } from "./Amqp.ts"

interface Stored {
  /** Where it belongs in its queue, also after it was given back. */
  readonly position: number
  readonly message: AmqpMessage
  redelivered: boolean
}

/** A message a consumer has and has not settled. */
export interface Held {
  readonly message: AmqpMessage
  readonly redelivered: boolean
  /** Once; afterwards, or after the consumer was dropped, it does nothing. */
  readonly settle: (how: "ack" | "reject" | "giveBack") => void
}

/** One delivery of a message; each delivery of it has its own. */
interface Ticket {
  readonly stored: Stored
}

interface Consumer {
  readonly prefetch: number
  readonly deliver: (held: Held) => void
  readonly cancelled: () => void
  readonly held: Set<Ticket>
}

interface MemoryQueue {
  readonly spec: QueueSpec
  readonly ready: Array<Stored>
  readonly consumers: Set<Consumer>
  unacked: number
}

/** What a publish came to; the same words as the real broker's. */
export type Published = "routed" | "unroutable" | "no exchange"

/** Whether a topic's words fit a binding's: `*` is any one, `#` any number of them. */
const fits = (pattern: ReadonlyArray<string>, words: ReadonlyArray<string>): boolean => {
  const [first, ...rest] = pattern
  if (first === undefined) return words.length === 0
  if (first === "#") return words.some((_, index) => fits(rest, words.slice(index))) || fits(rest, [])
  return words.length > 0 && (first === "*" || first === words[0]) && fits(rest, words.slice(1))
}

/**
 * As much of a broker as deterministic tests need: direct, topic, fanout and default exchanges, alternates of them, queues with prefetch, ack,
 * reject (dead-lettered as `x-dead-letter-exchange` says), requeue in place, and a queue's `x-message-ttl`. Synchronous,
 * nothing durable; the time is the caller's: `later` runs something when so many milliseconds are over.
 */
export const make = (later: (millis: number, run: () => void) => void) => {
  const exchanges = new Map<string, ExchangeSpec>()
  const queues = new Map<string, MemoryQueue>()
  let positions = 0
  const bindings: Array<{ readonly exchange: string; readonly queue: string; readonly routingKey: string }> = []

  const feed = (queue: MemoryQueue) => {
    for (const consumer of queue.consumers) {
      while (consumer.held.size < consumer.prefetch) {
        const stored = queue.ready.shift()
        if (stored === undefined) return
        hand(queue, consumer, stored)
      }
    }
  }

  const hand = (queue: MemoryQueue, consumer: Consumer, stored: Stored) => {
    const ticket: Ticket = { stored }
    consumer.held.add(ticket)
    queue.unacked += 1
    consumer.deliver({
      message: stored.message,
      redelivered: stored.redelivered,
      settle: (how) => {
        if (!consumer.held.delete(ticket)) return
        queue.unacked -= 1
        if (how === "giveBack") back(queue, [stored])
        if (how === "reject") deadLetter(queue, stored.message)
        feed(queue)
      }
    })
  }

  const back = (queue: MemoryQueue, stored: ReadonlyArray<Stored>) => {
    for (const one of stored) one.redelivered = true
    queue.ready.unshift(...stored)
    queue.ready.sort((a, b) => a.position - b.position)
  }

  /** Its time is over, if it still waits. */
  const expire = (queue: MemoryQueue, stored: Stored) => {
    const at = queue.ready.indexOf(stored)
    if (at === -1) return
    queue.ready.splice(at, 1)
    deadLetter(queue, stored.message)
  }

  const deadLetter = (queue: MemoryQueue, message: AmqpMessage) => {
    const exchange = queue.spec.arguments?.["x-dead-letter-exchange"]
    const routingKey = queue.spec.arguments?.["x-dead-letter-routing-key"] ?? message.routingKey
    if (exchange !== undefined) publish({ ...message, exchange: String(exchange), routingKey: String(routingKey) })
  }

  const isBound = (type: ExchangeSpec["type"] | undefined, pattern: string, routingKey: string) =>
    type === "fanout" || pattern === routingKey ||
    (type === "topic" && fits(pattern.split("."), routingKey.split(".")))

  const targets = (exchange: string, routingKey: string): ReadonlyArray<MemoryQueue> => {
    const spec = exchanges.get(exchange)
    const names = exchange === ""
      ? [routingKey]
      : bindings.filter((binding) =>
        binding.exchange === exchange && isBound(spec?.type, binding.routingKey, routingKey)
      ).map((binding) => binding.queue)
    const found = [...new Set(names)].map((name) => queues.get(name)).filter((queue) => queue !== undefined)
    return found.length === 0 && spec?.alternate !== undefined ? targets(spec.alternate, routingKey) : found
  }

  const publish = (message: AmqpMessage): Published => {
    if (message.exchange !== "" && !exchanges.has(message.exchange)) return "no exchange"
    const found = targets(message.exchange, message.routingKey)
    for (const queue of found) {
      const stored = { position: ++positions, message, redelivered: false }
      queue.ready.push(stored)
      const ttl = queue.spec.arguments?.["x-message-ttl"]
      if (typeof ttl === "number") later(ttl, () => expire(queue, stored))
      if (queue.spec.maxLength !== undefined && queue.ready.length > queue.spec.maxLength) queue.ready.shift()
      feed(queue)
    }
    return found.length > 0 ? "routed" : "unroutable"
  }

  const declareQueue = (spec: QueueSpec) => {
    if (!queues.has(spec.name)) queues.set(spec.name, { spec, ready: [], consumers: new Set(), unacked: 0 })
  }

  return {
    publish,
    declareQueue,
    declare: (topology: Topology) => {
      for (const spec of topology.exchanges ?? []) if (!exchanges.has(spec.name)) exchanges.set(spec.name, spec)
      for (const spec of topology.queues ?? []) declareQueue(spec)
      for (const added of topology.bindings ?? []) {
        const isKnown = bindings.some((known) =>
          known.exchange === added.exchange && known.queue === added.queue && known.routingKey === added.routingKey
        )
        if (!isKnown) bindings.push(added)
      }
    },
    /** Undefined if there is no such queue; else takes the consumer off again. */
    consume: (name: string, prefetch: number, deliver: (held: Held) => void, cancelled: () => void) => {
      const queue = queues.get(name)
      if (queue === undefined) return undefined
      const consumer: Consumer = { prefetch, deliver, cancelled, held: new Set() }
      queue.consumers.add(consumer)
      feed(queue)
      return {
        /** No new deliveries; held ones can still be settled. */
        cancel: () => void queue.consumers.delete(consumer),
        /** As a lost channel: what it held goes back, in order, and settling does nothing any more. */
        drop: () => {
          queue.consumers.delete(consumer)
          const held = Array.from(consumer.held, (ticket) => ticket.stored)
          consumer.held.clear()
          queue.unacked -= held.length
          if (queues.get(name) !== queue) return
          back(queue, held)
          feed(queue)
        }
      }
    },
    deleteQueue: (name: string) => {
      const queue = queues.get(name)
      queues.delete(name)
      for (const consumer of queue?.consumers ?? []) consumer.cancelled()
    },
    /** How many messages wait in a queue, and how many are held by consumers. */
    look: (name: string): { readonly ready: number; readonly unacked: number } | undefined => {
      const queue = queues.get(name)
      return queue === undefined ? undefined : { ready: queue.ready.length, unacked: queue.unacked }
    }
  }
}

export type MemoryBroker = ReturnType<typeof make>

/** The properties a consumer sees: absent means absent, as on the wire. */
export const propertiesOf = (message: AmqpMessage): AmqpProperties => ({ headers: {}, ...message.properties })
