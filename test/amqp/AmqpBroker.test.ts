/** What only a broker of one's own can show: it is absent, restarts, hangs, has an alarm. */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Scope, Stream } from "effect"
import type { Amqp, AmqpStatus } from "../../src/layers/amqp/Amqp.ts"
import type { ExclusiveBroker } from "../support/Broker.ts"
import { Broker } from "../support/Broker.ts"
import { awaitLength, message, numbers, take, text } from "./Contract.ts"
import * as Live from "./Live.ts"

const ask = <A>(f: () => Promise<A>) => Effect.promise(f)

const until = (amqp: Amqp["Service"], right: (status: AmqpStatus) => boolean) =>
  amqp.changes.pipe(Stream.filter(right), Stream.runHead)

describe("Amqp on a broker in trouble", () => {
  let broker: ExclusiveBroker

  beforeAll(async () => {
    broker = await Broker.acquireExclusive()
  }, Broker.startMillis)
  afterAll(() => broker.release())

  it.live(
    "absent at start: builds at once, keeps what is published, and starts when the broker appears",
    () =>
      Effect.gen(function*() {
        yield* ask(() => broker.kill())
        const complaints = yield* Live.complaints
        const amqp = yield* Live.connect(broker)
        const consumed = yield* Effect.forkChild(take(amqp, "q", 10), { startImmediately: true })
        const ensured = yield* Effect.forkChild(amqp.ensure({ queues: [{ name: "q" }] }), { startImmediately: true })
        assert.isFalse((yield* amqp.status).connected)
        yield* until(amqp, (status) => status.lastError !== undefined)
        yield* ask(() => broker.start())
        yield* Fiber.join(ensured)
        yield* Effect.forEach(numbers(10), (n) => amqp.publish(message("q", String(n))))
        assert.deepStrictEqual((yield* Fiber.join(consumed)).map(text), numbers(10).map(String))
        yield* until(amqp, (status) => status.connected)
        assert.deepStrictEqual(complaints, [])
      }),
    60_000
  )

  it.live(
    "killed and restarted in the middle: nothing confirmed is lost, what is transient is declared again",
    () =>
      Effect.gen(function*() {
        const complaints = yield* Live.complaints
        const amqp = yield* Live.connect(broker)
        yield* amqp.ensure({
          exchanges: [{ name: "transient", type: "direct", durable: false }],
          queues: [{ name: "durable" }],
          bindings: [{ exchange: "transient", queue: "durable", routingKey: "rk" }]
        })
        const seen: Array<string> = []
        yield* amqp.consume("durable", { prefetch: 20 }).pipe(
          Stream.runForEach((delivery) => Effect.andThen(Effect.sync(() => seen.push(text(delivery))), delivery.ack)),
          Effect.forkChild({ startImmediately: true })
        )
        const producer = yield* Effect.gen(function*() {
          const confirms = yield* Effect.forEach(
            numbers(1000),
            (n) => amqp.enqueue(message("rk", String(n), { exchange: "transient" }))
          )
          yield* Effect.all(confirms, { concurrency: "unbounded", discard: true })
        }).pipe(Effect.forkChild({ startImmediately: true }))
        yield* awaitLength(seen, 50)
        yield* ask(() => broker.restart())
        yield* Fiber.join(producer)
        // The consumer may be in the longest of its pauses when the broker is back.
        yield* ask(() => Broker.until(async () => new Set(seen).size, (size) => size === 1000, 30_000))
        const firsts = [...new Set(seen)]
        assert.deepStrictEqual(firsts, numbers(1000).map(String))
        assert.deepStrictEqual(complaints, [])
      }),
    60_000
  )

  it.live("an alarm holds publishing back, says so, and nothing else stops", () =>
    Effect.gen(function*() {
      const amqp = yield* Live.connect(broker)
      yield* amqp.ensure({ queues: [{ name: "a" }, { name: "b" }] })
      yield* amqp.publish(message("a", "before"))
      yield* ask(() => broker.block())
      const held = yield* Effect.forkChild(amqp.publish(message("b", "held")), { startImmediately: true })
      yield* until(amqp, (status) => status.blocked !== undefined)
      // Consuming, acking and declaring go on.
      assert.deepStrictEqual((yield* take(amqp, "a", 1)).map(text), ["before"])
      yield* amqp.declareOrUse({ name: "c" })
      assert.isTrue(held.pollUnsafe() === undefined)
      yield* ask(() => broker.unblock())
      assert.deepStrictEqual(yield* Fiber.join(held), { routed: true })
      yield* until(amqp, (status) => status.blocked === undefined)
    }).pipe(Effect.ensuring(ask(() => broker.unblock()))))

  it.live("closing under an alarm ends in time and leaves no connection", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const amqp = yield* Live.connect(broker).pipe(Scope.provide(scope))
      yield* amqp.ensure({ queues: [{ name: "alarmed" }] })
      yield* ask(() => broker.block())
      const held = yield* Effect.forkChild(Effect.flip(amqp.publish(message("alarmed", "x"))), {
        startImmediately: true
      })
      yield* until(amqp, (status) => status.blocked !== undefined)
      yield* Effect.timeout(Scope.close(scope, Exit.void), "5 seconds")
      assert.strictEqual((yield* Fiber.join(held)).reason, "Closed")
      yield* ask(() => broker.unblock())
      yield* ask(() => Broker.until(() => broker.connections(), (all) => all.length === 0))
    }).pipe(Effect.ensuring(ask(() => broker.unblock()))))

  it.live("a broker that hangs is noticed by its missing heartbeats, and used again when it answers", () =>
    Effect.gen(function*() {
      const amqp = yield* Live.connect(broker, { heartbeat: "1 second", connectTimeout: "500 millis" })
      yield* amqp.ensure({ queues: [{ name: "hung" }] })
      yield* until(amqp, (status) => status.connected)
      yield* ask(() => broker.freeze())
      const confirm = yield* amqp.enqueue(message("hung", "x"))
      yield* until(amqp, (status) => !status.publishing && !status.consuming)
      yield* ask(() => broker.thaw())
      assert.deepStrictEqual(yield* confirm, { routed: true })
    }).pipe(Effect.ensuring(ask(() => broker.thaw()))))

  it.live("closing while the broker hangs ends in time", () =>
    Effect.gen(function*() {
      const complaints = yield* Live.complaints
      const scope = yield* Scope.make()
      const amqp = yield* Live.connect(broker).pipe(Scope.provide(scope))
      const queues = numbers(5).map((n) => ({ name: `frozen${n}` }))
      yield* amqp.ensure({ queues })
      yield* Effect.forEach(queues, ({ name }) =>
        Effect.forkDetach(Stream.runDrain(amqp.consume(name, { prefetch: 1 })), { startImmediately: true }))
      yield* ask(() =>
        Broker.until(() => broker.queue("frozen4"), (queue) => queue?.consumers === 1)
      )
      yield* ask(() => broker.freeze())
      const confirm = yield* amqp.enqueue(message("frozen0", "x"))
      yield* Effect.timeout(Scope.close(scope, Exit.void), "6 seconds")
      assert.strictEqual((yield* Effect.flip(confirm)).reason, "Closed")
      yield* ask(() => broker.thaw())
      yield* ask(() => Broker.until(() => broker.connections(), (all) => all.length === 0))
      assert.deepStrictEqual(complaints, [])
    }).pipe(Effect.ensuring(ask(() => broker.thaw()))))
})
