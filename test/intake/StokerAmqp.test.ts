import { beforeAll } from "@effect/vitest"
import { Effect } from "effect"
import { jobsTopology, queueOf } from "../../src/layers/intake/StokerTopology.ts"
import { Journal } from "../../src/layers/journal/Journal.ts"
import * as JournalMemory from "../../src/layers/journal/JournalMemory.ts"
import { priorities } from "../../src/schemas/Terms.ts"
import { acquireBroker, acquireRaw, amqpOf, ask, served, startIntake } from "../stokeramqp/Place.ts"
import { Broker } from "../support/Broker.ts"
import { messageOf } from "./stokerMessage.ts"
import { type Door, suite } from "./suite.ts"

beforeAll(async () => {
  await using broker = await Broker.acquire()
  void broker
}, Broker.startMillis)

const place = Effect.gen(function*() {
  const broker = yield* acquireBroker
  const amqp = yield* amqpOf(broker)
  for (const level of priorities) yield* amqp.ensure(jobsTopology(queueOf(level)))
  const raw = yield* acquireRaw(broker)
  const journal = yield* Effect.provide(Journal, JournalMemory.layerMemory)
  const door: Door = {
    send: (id, sending) => Effect.flatMap(messageOf(id, sending), amqp.publish),
    open: Effect.gen(function*() {
      const { arrived } = yield* startIntake(broker, { slots: 1, weights: { high: 16, normal: 4, low: 1 } })
      for (const level of priorities) yield* served(broker, queueOf(level))
      return arrived
    }),
    journal,
    letters: ask(async () => {
      const letters = []
      for (;;) {
        const letter = await raw.channel.get("stoker.dead", { noAck: false })
        if (letter === false) break
        const { id } = JSON.parse(letter.content.toString()) as { readonly id: string }
        letters.push({ id, reason: String(letter.properties.headers?.["x-stoker-reason"]) })
      }
      await raw.channel.recover()
      return letters
    }),
    // An ack is on its way for a moment.
    isEmpty: ask(() =>
      Broker.until(
        () => broker.queues(),
        (queues) => queues.every(({ name, ready, unacked }) => name === "stoker.dead" || ready + unacked === 0)
      )
    ).pipe(Effect.as(true)),
    pass: (millis) => Effect.sleep(millis),
    soon: (effect) => effect
  }
  return door
})

suite("Stoker's AMQP dialect on RabbitMQ", "live", place)
