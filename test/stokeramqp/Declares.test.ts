import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Logger, Queue, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Amqp, type Topology } from "../../src/layers/amqp/Amqp.ts"
import { layerTest } from "../../src/layers/amqp/AmqpTest.ts"
import { StokerAmqpClient } from "../../src/layers/amqpclient/StokerAmqpClient.ts"
import * as StokerAmqpClientLive from "../../src/layers/amqpclient/StokerAmqpClientLive.ts"
import * as ArtefactsMemory from "../../src/layers/artefacts/ArtefactsMemory.ts"
import * as ControlTest from "../../src/layers/control/ControlTest.ts"
import * as StokerEmitter from "../../src/layers/emitter/Stoker.ts"
import * as Stoker from "../../src/layers/intake/Stoker.ts"
import * as StokerControl from "../../src/layers/intake/StokerControl.ts"
import { waits } from "../../src/layers/intake/StokerTopology.ts"
import * as LogMemory from "../../src/layers/log/LogMemory.ts"
import { FunctionName, InstanceId, JobId } from "../../src/schemas/Ids.ts"

/** Remembers every topology that is asked for. */
const recording = (declared: Array<Topology>) =>
  Layer.effect(
    Amqp,
    Effect.map(Amqp, (amqp) =>
      Amqp.of({
        ...amqp,
        ensure: (topology) => {
          declared.push(topology)
          return amqp.ensure(topology)
        },
        declareOrUse: (queue) => {
          declared.push({ queues: [queue] })
          return amqp.declareOrUse(queue)
        },
        consume: (queue, options) => {
          declared.push(options.topology ?? {})
          return amqp.consume(queue, options)
        }
      }))
  ).pipe(Layer.provideMerge(layerTest))

/** Everything this dialect ever declares: intake, every wait queue, dead letters, events, questions, client. */
const everything = Effect.gen(function*() {
  const declared: Array<Topology> = []
  const context = yield* Layer.build(
    Layer.mergeAll(
      StokerAmqpClientLive.layer({ name: "test" }),
      ControlTest.layerTest
    ).pipe(
      Layer.provideMerge(Layer.merge(LogMemory.layerMemory, ArtefactsMemory.layerMemory)),
      Layer.provideMerge(recording(declared)),
      Layer.provideMerge(Logger.layer([]))
    )
  )
  return yield* Effect.gen(function*() {
    const emitter = yield* StokerEmitter.make()
    const intake = yield* Stoker.make({ slots: 2, emitter, user: "guest" })
    const arrived = yield* Queue.unbounded<Stoker.StokerDelivery>()
    yield* Effect.forkScoped(Stream.runForEach(intake.deliveries, (delivery) => Queue.offer(arrived, delivery)))
    yield* StokerControl.make({ instance: InstanceId.make("w1"), user: "guest" })
    const client = Context.get(context, StokerAmqpClient)
    const job = { function: FunctionName.make("say"), args: {} }
    for (const level of ["high", "normal", "low"] as const) {
      yield* client.submit({ ...job, id: JobId.make(level), priority: level })
      yield* Effect.flatMap(Queue.take(arrived), ({ reject }) => reject("a test"))
    }
    for (const wait of waits) yield* client.submit({ ...job, id: JobId.make(`w${wait}`), delayMs: wait + 1 })
    yield* client.list({ limit: 1 }).pipe(Effect.forkChild, Effect.andThen(TestClock.adjust("10 seconds")))
    const queues = new Map(declared.flatMap((topology) => topology.queues ?? []).map((queue) => [queue.name, queue]))
    const exchanges = declared.flatMap((topology) => topology.exchanges ?? [])
    return { queues, exchanges }
  }).pipe(Effect.provideContext(context))
})

/** Arguments that RabbitMQ 4 refuses or ignores, and that 3.10 accepts and ignores. */
const unfit = [
  "x-queue-mode",
  "x-queue-version",
  "x-max-priority",
  "x-ha-policy",
  "x-consumer-timeout",
  "x-queue-master-locator"
]

describe("what this dialect declares", () => {
  it.effect("is all there is, and nothing of it is refused by RabbitMQ 4 or ignored by 3.10", () =>
    Effect.gen(function*() {
      const { exchanges, queues } = yield* everything
      assert.sameMembers([...queues.keys()], [
        "stoker.jobs",
        "stoker.jobs.high",
        "stoker.jobs.low",
        "stoker.dead",
        "stoker.control.w1",
        "stoker.client.test",
        ...waits.map((wait) => `stoker.wait.${wait}`)
      ])
      for (const [name, queue] of queues) {
        const given = queue.arguments ?? {}
        for (const argument of unfit) assert.notProperty(given, argument, name)
        // Durable or its owner's alone: others are denied by 4.3.
        assert.isTrue(queue.durable !== false || queue.exclusive === true, name)
        if (queue.exclusive === true) continue
        assert.strictEqual(given["x-queue-type"], "quorum", name)
        assert.isAbove(Number(given["x-delivery-limit"]), 0, name)
        assert.isNotTrue(queue.autoDelete, name)
        // 4.3 denies none of these on a quorum queue; a lifetime alone would lose messages that are not confirmed.
        if (name !== "stoker.dead") {
          assert.strictEqual(given["x-dead-letter-strategy"], "at-least-once", name)
          assert.strictEqual(given["x-overflow"], "reject-publish", name)
          assert.strictEqual(given["x-dead-letter-exchange"], "", name)
        }
      }
      assert.isTrue(exchanges.every(({ durable }) => durable !== false))
    }).pipe(Effect.scoped))
})

describe("a drain", () => {
  it.effect("does not wait for a broker that is away: what it gives back stays the broker's", () =>
    Effect.gen(function*() {
      const given: Array<string> = []
      const raw = {
        body: new TextEncoder().encode(`{"id":"j1","function":"say","args":{}}`),
        properties: {},
        exchange: "",
        routingKey: "stoker.jobs",
        queue: "stoker.jobs",
        redelivered: true,
        ack: Effect.sync(() => void given.push("ack")),
        reject: Effect.die("never"),
        giveBack: Effect.sync(() => void given.push("given back"))
      }
      const away = Layer.mock(Amqp)({
        ensure: () => Effect.never,
        publish: () => Effect.never,
        consume: (queue) => queue === "stoker.jobs" ? Stream.concat(Stream.make(raw), Stream.never) : Stream.never
      })
      yield* Effect.gen(function*() {
        const intake = yield* Stoker.make({
          slots: 1,
          user: "guest",
          emitter: { send: () => Effect.succeed(Effect.void) }
        })
        const [delivery] = yield* Stream.runCollect(Stream.take(intake.deliveries, 1))
        const giving = yield* Effect.never.pipe(
          Effect.onInterrupt(() => delivery?.giveBack ?? Effect.void),
          Effect.forkChild({ startImmediately: true })
        )
        giving.interruptUnsafe()
        yield* TestClock.adjust("2 seconds")
        assert.deepStrictEqual(given, ["given back"])
      }).pipe(Effect.provide(away))
    }).pipe(Effect.scoped))
})
