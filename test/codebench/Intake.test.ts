import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, Logger, Queue, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Amqp, type AmqpDelivery, AmqpError, type AmqpMessage } from "../../src/layers/amqp/Amqp.ts"
import { AmqpTest, layerTest } from "../../src/layers/amqp/AmqpTest.ts"
import * as CodeBench from "../../src/layers/intake/CodeBench.ts"
import type { Delivery } from "../../src/layers/intake/Intake.ts"
import type { Message } from "../../src/schemas/Message.ts"

/** Every message kept is a warning; here that is what is tested. */
const silent = Logger.layer([])
const transport = Layer.merge(layerTest, silent)

const utf8 = (text: string) => new TextEncoder().encode(text)
const good = (id: string) => utf8(JSON.stringify({ id, language: "c", code: "x" }))

const toExchange = (body: Uint8Array, properties: AmqpMessage["properties"] = {}): AmqpMessage => ({
  exchange: "jobs_ex",
  routingKey: "jobs_rk",
  body,
  properties
})
const toQueue = (body: Uint8Array): AmqpMessage => ({ exchange: "", routingKey: "jobs", body })

/** Everything has gone as far as it can without another message and without time. */
const settled = Effect.gen(function*() {
  for (let turn = 0; turn < 100; turn++) yield* Effect.yieldNow
})

/** An intake whose deliveries arrive in a queue, and what it told senders. */
const opened = Effect.fnUntraced(function*(options: Partial<CodeBench.CodeBenchIntakeOptions> = {}) {
  const told: Array<Message> = []
  const intake = yield* CodeBench.make({
    queues: [CodeBench.exchangeQueue(4), CodeBench.readmeQueue(4)],
    emitter: {
      send: (message) =>
        Effect.sync(() => {
          told.push(message)
          return Effect.void
        })
    },
    ...options
  })
  const arrived = yield* Queue.unbounded<Delivery>()
  const taking = yield* intake.deliveries.pipe(
    Stream.runForEach((delivery) => Queue.offer(arrived, delivery)),
    Effect.forkChild({ startImmediately: true })
  )
  yield* settled
  return { intake, arrived, taking, told }
})

/** What lies in the dead queue, one message after the other. */
const dead = (count: number) =>
  Effect.flatMap(
    Amqp,
    (amqp) => amqp.consume("stoker.dead", { prefetch: 10 }).pipe(Stream.take(count), Stream.runCollect)
  )

const look = (queue: string) => Effect.flatMap(AmqpTest, (control) => control.look(queue))

describe("CodeBench intake", () => {
  it.effect("hands over jobs of both forms, each with the way back", () =>
    Effect.gen(function*() {
      const { arrived } = yield* opened()
      const amqp = yield* Amqp
      yield* amqp.publish(toExchange(good("1"), { userId: "alice", headers: { traceparent: "00-a-b-01" } }))
      const first = yield* Queue.take(arrived)
      assert.deepInclude(first.job, { id: "1", owner: "alice", intake: "codebench", traceparent: "00-a-b-01" } as never)
      assert.deepStrictEqual(first.reply, { dialect: "codebench", form: "exchange" })
      assert.isFalse(first.redelivered)
      yield* amqp.publish(toQueue(good("1")))
      const second = yield* Queue.take(arrived)
      assert.deepStrictEqual(second.reply, { dialect: "codebench", form: "queue" })
      assert.strictEqual(second.hash, first.hash)
      assert.deepStrictEqual(yield* look("jobs_q"), { ready: 0, unacked: 1 })
      yield* first.ack
      assert.deepStrictEqual(yield* look("jobs_q"), { ready: 0, unacked: 0 })
    }).pipe(Effect.provide(transport)))

  it.effect("holds no more than its share of each queue", () =>
    Effect.gen(function*() {
      const { arrived } = yield* opened({ queues: [CodeBench.exchangeQueue(2)] })
      const amqp = yield* Amqp
      for (const id of ["1", "2", "3", "4", "5"]) yield* amqp.publish(toExchange(good(id)))
      const first = yield* Queue.take(arrived)
      yield* Queue.take(arrived)
      assert.deepStrictEqual(yield* look("jobs_q"), { ready: 3, unacked: 2 })
      yield* first.ack
      assert.strictEqual((yield* Queue.take(arrived)).job.id, "3")
    }).pipe(Effect.provide(transport)))

  it.effect("what came back is said to be redelivered", () =>
    Effect.gen(function*() {
      const { arrived } = yield* opened()
      yield* (yield* Amqp).publish(toExchange(good("1")))
      yield* Effect.flatMap(Queue.take(arrived), (delivery) => delivery.giveBack)
      assert.isTrue((yield* Queue.take(arrived)).redelivered)
    }).pipe(Effect.provide(transport)))

  it.effect("interrupted: what nobody took goes back, what was taken can still be settled", () =>
    Effect.gen(function*() {
      const { intake } = yield* opened({ queues: [] })
      const again = yield* CodeBench.make({
        queues: [CodeBench.exchangeQueue(4)],
        emitter: { send: () => Effect.succeed(Effect.void) }
      })
      assert.strictEqual(intake.name, again.name)
      const taken = yield* Deferred.make<Delivery>()
      const taking = yield* again.deliveries.pipe(
        Stream.runForEach((delivery) => Effect.andThen(Deferred.succeed(taken, delivery), Effect.never)),
        Effect.forkChild({ startImmediately: true })
      )
      yield* settled
      for (const id of ["1", "2", "3", "4"]) yield* (yield* Amqp).publish(toExchange(good(id)))
      const delivery = yield* Deferred.await(taken)
      yield* settled
      yield* Fiber.interrupt(taking)
      assert.deepStrictEqual(yield* look("jobs_q"), { ready: 3, unacked: 1 })
      yield* delivery.ack
      assert.deepStrictEqual(yield* look("jobs_q"), { ready: 3, unacked: 0 })
    }).pipe(Effect.provide(transport)))
})

describe("CodeBench intake: messages that are no jobs", () => {
  it.effect("are kept with reason, remedy and origin, and the sender is told in the form it used", () =>
    Effect.gen(function*() {
      const { told } = yield* opened()
      const amqp = yield* Amqp
      yield* amqp.publish(toExchange(utf8(`{"id":"7","language":"rust","code":"x"}`), {
        messageId: "m",
        correlationId: "c",
        userId: "alice",
        contentType: "application/json"
      }))
      const [letter] = yield* dead(1)
      assert.deepStrictEqual(letter?.body, utf8(`{"id":"7","language":"rust","code":"x"}`))
      assert.deepStrictEqual(letter?.properties, {
        contentType: "application/json",
        correlationId: "c",
        messageId: "m",
        headers: {
          "x-stoker-reason": `the language "rust" is not known`,
          "x-stoker-remedy": "Use one of: python, c, cpp, go.",
          "x-stoker-queue": "jobs_q",
          "x-stoker-exchange": "jobs_ex",
          "x-stoker-routing-key": "jobs_rk",
          "x-stoker-time": "1970-01-01T00:00:00.000Z",
          "x-stoker-user-id": "alice"
        }
      })
      yield* settled
      assert.deepStrictEqual(yield* look("jobs_q"), { ready: 0, unacked: 0 })
      assert.strictEqual(told[0]?.id, "codebench/alice/7#0.end.0")
      assert.deepStrictEqual(told[0]?.content, {
        exchange: "jobs_status_ex",
        routingKey: "jobs_status_rk",
        body:
          `{"id":"7","status":"failed","message":"Failed to run","error":"was rejected: the language \\"rust\\" is not known. Use one of: python, c, cpp, go.","stderr":"","stdout":"","exec_duration":0,"mem_usage":0}`
      })

      yield* amqp.publish(toQueue(utf8(`{"id":"8"}`)))
      yield* settled
      assert.deepInclude(told[1]?.content, { routingKey: "job_status_8", queue: "job_status_8" })
    }).pipe(Effect.provide(transport)))

  it.effect("without a usable id are kept, and nobody is told", () =>
    Effect.gen(function*() {
      const { told } = yield* opened()
      const bodies = ["int main", `{"id":"../../x","language":"c","code":"x"}`, `{"language":"c","code":"x"}`]
      for (const body of bodies) yield* (yield* Amqp).publish(toQueue(utf8(body)))
      const letters = yield* dead(3)
      assert.sameMembers(letters.map(({ body }) => new TextDecoder().decode(body)), bodies)
      yield* settled
      assert.deepStrictEqual(told, [])
      assert.deepStrictEqual(yield* look("jobs"), { ready: 0, unacked: 0 })
    }).pipe(Effect.provide(transport)))

  it.effect("do not hold up the jobs behind them", () =>
    Effect.gen(function*() {
      const { arrived } = yield* opened({ emitter: { send: () => Effect.never } })
      const amqp = yield* Amqp
      for (let n = 0; n < 3; n++) yield* amqp.publish(toExchange(utf8(`{"id":"bad"}`)))
      yield* amqp.publish(toExchange(good("1")))
      assert.strictEqual((yield* Queue.take(arrived)).job.id, "1")
    }).pipe(Effect.provide(transport)))

  it.effect("are kept even if somebody deletes the dead queue", () =>
    Effect.gen(function*() {
      yield* opened()
      const amqp = yield* Amqp
      yield* amqp.publish(toQueue(utf8("1")))
      yield* dead(1)
      yield* (yield* AmqpTest).deleteQueue("stoker.dead")
      yield* amqp.publish(toQueue(utf8("2")))
      yield* settled
      // The first try finds no queue, the next one makes it.
      yield* TestClock.adjust("1 second")
      const [letter] = yield* dead(1)
      assert.deepStrictEqual(letter?.body, utf8("2"))
    }).pipe(Effect.provide(transport)))

  it.effect("a rejected job is kept with the reason, and its sender is not told twice", () =>
    Effect.gen(function*() {
      const { arrived, told } = yield* opened()
      yield* (yield* Amqp).publish(toExchange(good("1")))
      yield* Effect.flatMap(Queue.take(arrived), (delivery) => delivery.reject("the id is taken"))
      const [letter] = yield* dead(1)
      assert.strictEqual(letter?.properties.headers?.["x-stoker-reason"], "the id is taken")
      assert.deepStrictEqual(yield* look("jobs_q"), { ready: 0, unacked: 0 })
      assert.deepStrictEqual(told, [])
    }).pipe(Effect.provide(transport)))
})

/** A broker with one message, whose answers to publishing the test gives. */
const slowBroker = Effect.fnUntraced(function*(body: Uint8Array) {
  const order: Array<string> = []
  const answers = yield* Queue.unbounded<Effect.Effect<{ readonly routed: boolean }, AmqpError>>()
  const published: Array<AmqpMessage> = []
  const delivery: AmqpDelivery = {
    body,
    properties: {},
    exchange: "",
    routingKey: "jobs",
    queue: "jobs",
    redelivered: false,
    ack: Effect.sync(() => void order.push("ack")),
    reject: Effect.die("the dead letter is the copy"),
    giveBack: Effect.die("it is kept, not given back")
  }
  const layer = Layer.mock(Amqp)({
    ensure: () => Effect.sync(() => void order.push("ensure")),
    consume: () => Stream.concat(Stream.make(delivery), Stream.never),
    publish: (message) =>
      Effect.suspend(() => {
        published.push(message)
        order.push("publish")
        return Effect.flatten(Queue.take(answers))
      })
  })
  return {
    layer,
    order,
    published,
    answer: (effect: Effect.Effect<{ readonly routed: boolean }, AmqpError>) => Queue.offer(answers, effect)
  }
})

const refusal = (reason: AmqpError["reason"]) =>
  new AmqpError({ operation: "publish", reason, broker: "test", detail: "no", remedy: "none" })

describe("CodeBench intake: nothing is acked before its dead letter is confirmed", () => {
  it.effect("neither before the confirm, nor before the sender is told", () =>
    Effect.gen(function*() {
      const broker = yield* slowBroker(utf8(`{"id":"1"}`))
      const telling = yield* Deferred.make<void>()
      yield* opened({
        queues: [CodeBench.readmeQueue(1)],
        emitter: { send: () => Effect.succeed(Deferred.await(telling)) }
      }).pipe(Effect.provide([broker.layer, silent]))
      yield* settled
      assert.deepStrictEqual(broker.order, ["ensure", "publish"])
      yield* broker.answer(Effect.succeed({ routed: true }))
      yield* settled
      assert.deepStrictEqual(broker.order, ["ensure", "publish"])
      yield* Deferred.succeed(telling, undefined)
      yield* settled
      assert.deepStrictEqual(broker.order, ["ensure", "publish", "ack"])
    }))

  it.effect("not while the broker refuses it or drops it, however often", () =>
    Effect.gen(function*() {
      const broker = yield* slowBroker(utf8("x"))
      yield* opened({ queues: [CodeBench.readmeQueue(1)] }).pipe(Effect.provide([broker.layer, silent]))
      for (let n = 0; n < 20; n++) {
        yield* broker.answer(n % 2 === 0 ? Effect.fail(refusal("Nacked")) : Effect.succeed({ routed: false }))
        yield* settled
        yield* TestClock.adjust("20 seconds")
      }
      assert.isAbove(broker.published.length, 10)
      assert.notInclude(broker.order, "ack")
      yield* broker.answer(Effect.succeed({ routed: true }))
      yield* settled
      yield* TestClock.adjust("20 seconds")
      yield* settled
      assert.strictEqual(broker.order.at(-1), "ack")
    }))

  it.effect("one too large for the broker is kept cut, and says so", () =>
    Effect.gen(function*() {
      const broker = yield* slowBroker(new Uint8Array(3_000_000))
      yield* broker.answer(Effect.fail(refusal("TooLarge")))
      yield* broker.answer(Effect.succeed({ routed: true }))
      yield* opened({ queues: [CodeBench.readmeQueue(1)] }).pipe(Effect.provide([broker.layer, silent]))
      yield* settled
      assert.deepStrictEqual(broker.order, ["ensure", "publish", "publish", "ack"])
      assert.strictEqual(broker.published[1]?.body.byteLength, 1024 * 1024)
      assert.strictEqual(broker.published[1]?.properties?.headers?.["x-stoker-bytes"], 3_000_000)
    }))
})
