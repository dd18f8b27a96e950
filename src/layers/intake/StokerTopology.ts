/**
 * What Stoker declares at a broker for itself, as data. Durable queues are quorum queues with an explicit delivery limit
 * and a dead-letter target. No argument is used that RabbitMQ 4 refuses or 3.10 ignores.
 */
import type { Priority } from "../../schemas/Terms.ts"
import type { Topology } from "../amqp/Amqp.ts"
import { deadTopology, defaultDeadQueue } from "../deadletters/Keeping.ts"

/** One queue for each priority, because quorum queues of 3.10 have none. Clients publish to these through the default exchange. */
export const queueOf = (level: Priority, prefix = "stoker.jobs"): string =>
  level === "normal" ? prefix : `${prefix}.${level}`

/**
 * Last resort against a message that ends every worker: how often the broker hands it out again. Lost connections and
 * drained workers count too on RabbitMQ 3, so it is far above what the journal's attempts and our own headers allow.
 */
export const deliveryLimit = 100

/** Handed over with a confirm from queue to queue, so that a dead letter cannot get lost between two. */
const confirmedDeadLetters = { "x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish" }

/** One jobs queue, and the dead queue behind it. */
export const jobsTopology = (queue: string, deadQueue = defaultDeadQueue): Topology => ({
  queues: [
    ...(deadTopology(deadQueue).queues ?? []),
    {
      name: queue,
      durable: true,
      arguments: {
        "x-queue-type": "quorum",
        "x-delivery-limit": deliveryLimit,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": deadQueue,
        ...confirmedDeadLetters
      }
    }
  ]
})

/**
 * Where events start functions: a message under `function.<name>`, `function.<name>.high` or `function.<name>.low` has
 * the bare arguments as its body.
 */
export const functionsExchange = (prefix = "stoker.jobs"): string => `${prefix.replace(/\.jobs$/, "")}.functions`

/**
 * That exchange, bound to the jobs queue of one priority. What goes there under another key comes to the usual queue too,
 * by an exchange of its own: so that it is refused aloud and kept, and not dropped by the broker.
 */
export const functionsTopology = (level: Priority, prefix?: string): Topology => {
  const name = functionsExchange(prefix)
  const other = `${name}.other`
  const queue = queueOf(level, prefix)
  const words = level === "normal" ? ["function.*", "function.*.normal"] : [`function.*.${level}`]
  return {
    exchanges: [{ name: other, type: "fanout", durable: true }, {
      name,
      type: "topic",
      durable: true,
      alternate: other
    }],
    bindings: [
      ...words.map((routingKey) => ({ exchange: name, queue, routingKey })),
      ...(level === "normal" ? [{ exchange: other, queue, routingKey: "" }] : [])
    ]
  }
}

/** Milliseconds of the wait queues: few, so that any delay is a handful of hops, each shorter than what is left. */
export const waits: ReadonlyArray<number> = [
  250,
  1000,
  5000,
  30_000,
  120_000,
  600_000,
  3_600_000,
  21_600_000,
  86_400_000
]

/** The longest wait that is not too long; at the end the shortest, which may be up to that much too late. */
export const waitFor = (ms: number): number => waits.findLast((wait) => wait <= ms) ?? waits[0] ?? 250

export const waitName = (wait: number): string => `stoker.wait.${wait}`

/**
 * A wait queue behind a fanout exchange of its name: a message is published there under the routing key that is its
 * jobs queue's name, and after its time goes through the default exchange under the same key. One lifetime for all in
 * a queue, so nothing waits behind something that waits longer.
 */
export const waitTopology = (wait: number): Topology => ({
  exchanges: [{ name: waitName(wait), type: "fanout", durable: true }],
  queues: [{
    name: waitName(wait),
    durable: true,
    arguments: {
      "x-queue-type": "quorum",
      "x-delivery-limit": deliveryLimit,
      "x-message-ttl": wait,
      "x-dead-letter-exchange": "",
      ...confirmedDeadLetters
    }
  }],
  bindings: [{ exchange: waitName(wait), queue: waitName(wait), routingKey: "" }]
})

/** Questions to all workers. */
export const controlExchange = "stoker.control"

/** The queue of one worker, gone with its connection. */
export const controlQueue = (instance: string): string => `${controlExchange}.${instance}`

export const controlTopology: Topology = { exchanges: [{ name: controlExchange, type: "fanout", durable: true }] }
