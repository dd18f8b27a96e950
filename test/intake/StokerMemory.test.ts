import { Context, Effect, Layer, Queue, Stream } from "effect"
import { Amqp } from "../../src/layers/amqp/Amqp.ts"
import { AmqpTest, layerTest } from "../../src/layers/amqp/AmqpTest.ts"
import * as ArtefactsMemory from "../../src/layers/artefacts/ArtefactsMemory.ts"
import * as StokerEmitter from "../../src/layers/emitter/Stoker.ts"
import type { Delivery } from "../../src/layers/intake/Intake.ts"
import * as StokerIntake from "../../src/layers/intake/Stoker.ts"
import { jobsTopology, queueOf, waitName, waits } from "../../src/layers/intake/StokerTopology.ts"
import { Journal } from "../../src/layers/journal/Journal.ts"
import * as JournalMemory from "../../src/layers/journal/JournalMemory.ts"
import * as LogMemory from "../../src/layers/log/LogMemory.ts"
import { priorities } from "../../src/schemas/Terms.ts"
import { messageOf } from "./stokerMessage.ts"
import { type Door, suite } from "./suite.ts"
import * as TestTime from "./testTime.ts"

const dead = "stoker.dead"

const place = Effect.gen(function*() {
  const context = yield* Layer.build(
    Layer.fresh(
      Layer.mergeAll(layerTest, JournalMemory.layerMemory, LogMemory.layerMemory, ArtefactsMemory.layerMemory)
    )
  )
  const amqp = Context.get(context, Amqp)
  const { connect, disconnect, look } = Context.get(context, AmqpTest)
  for (const level of priorities) yield* amqp.ensure(jobsTopology(queueOf(level)))
  const queues = [...priorities.map((level) => queueOf(level)), ...waits.map(waitName)]
  const door: Door = {
    send: (id, sending) => Effect.flatMap(messageOf(id, sending), amqp.publish),
    open: Effect.gen(function*() {
      // The end of a process is the end of its connection: what it held goes back.
      yield* Effect.addFinalizer(() => Effect.andThen(disconnect, connect))
      const emitter = yield* StokerEmitter.make()
      const weights = { high: 16, normal: 4, low: 1 }
      const { deliveries } = yield* StokerIntake.make({ slots: 1, weights, emitter, user: "guest" })
      const arrived = yield* Queue.unbounded<Delivery>()
      yield* Effect.forkScoped(Stream.runForEach(deliveries, (delivery) => Queue.offer(arrived, delivery)))
      return arrived
    }).pipe(Effect.provideContext(context)),
    journal: Context.get(context, Journal),
    letters: Effect.gen(function*() {
      const { ready } = (yield* look(dead)) ?? { ready: 0 }
      const letters = amqp.consume(dead, { prefetch: 100 }).pipe(
        Stream.take(ready),
        Stream.mapEffect(({ body, giveBack, properties: { headers } }) => {
          const { id } = JSON.parse(new TextDecoder().decode(body)) as { readonly id: string }
          return Effect.as(giveBack, { id, reason: String(headers?.["x-stoker-reason"]) })
        })
      )
      return ready === 0 ? [] : yield* Stream.runCollect(letters)
    }),
    isEmpty: Effect.map(
      Effect.forEach(queues, (queue) => look(queue)),
      (counts) => counts.every((count) => count === undefined || count.ready + count.unacked === 0)
    ),
    ...TestTime
  }
  return door
})

suite("Stoker's AMQP dialect in memory", "effect", place)
