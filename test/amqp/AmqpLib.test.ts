import { assert, beforeAll, describe, it } from "@effect/vitest"
import type { Scope } from "effect"
import { Deferred, Effect, Exit, Fiber, Logger, Scope as Scopes, Stream } from "effect"
import type { Amqp, AmqpDelivery, AmqpStatus } from "../../src/layers/amqp/Amqp.ts"
import { Broker } from "../support/Broker.ts"
import { message, numbers, publishUntilRouted, take, text } from "./Contract.ts"
import * as Live from "./Live.ts"

const ask = <A>(f: () => Promise<A>) => Effect.promise(f)

const until = (amqp: Amqp["Service"], right: (status: AmqpStatus) => boolean) =>
  amqp.changes.pipe(Stream.filter(right), Stream.runHead)

/** Everything from the queue up to the message "end". */
const drain = (amqp: Amqp["Service"], queue: string) =>
  amqp.consume(queue, { prefetch: 500 }).pipe(
    Stream.tap((delivery) => delivery.ack),
    Stream.map(text),
    Stream.takeWhile((body) => body !== "end"),
    Stream.runCollect
  )

const promise = (
  title: string,
  test: (broker: Broker) => Effect.Effect<void, unknown, Scope.Scope>
) => it.live(title, () => Effect.scoped(Effect.flatMap(Live.broker, test)))

/** Collects what is logged from Warning up, and at Info, as text. */
const logged = () => {
  const lines: Array<{ readonly level: string; readonly text: string }> = []
  const layer = Logger.layer([
    Logger.make(({ logLevel, message }) => void lines.push({ level: logLevel, text: String(message) }))
  ])
  return { lines, layer }
}

beforeAll(async () => {
  await using broker = await Broker.acquire()
  return void broker.url
}, Broker.startMillis)

describe("Amqp on RabbitMQ: publishing", () => {
  for (
    const [how, trouble] of [
      ["closed politely", (broker: Broker) => broker.closeAllConnections()],
      ["cut without a word", (broker: Broker) => broker.cutAllConnections()]
    ] as const
  ) {
    promise(
      `keeps the order of 2000 pipelined messages and loses none when connections are ${how}`,
      (broker) =>
        Effect.gen(function*() {
          const amqp = yield* Live.connect(broker)
          yield* amqp.ensure({ queues: [{ name: "stream" }] })
          const confirms: Array<Effect.Effect<unknown, unknown>> = []
          for (const n of numbers(2000)) {
            confirms.push(yield* amqp.enqueue(message("stream", String(n))))
            if (n === 700 || n === 1400) yield* Effect.forkChild(ask(() => trouble(broker)), { startImmediately: true })
          }
          yield* Effect.all(confirms, { concurrency: "unbounded", discard: true })
          yield* amqp.publish(message("stream", "end"))
          const got = yield* drain(amqp, "stream")
          assert.deepStrictEqual([...new Set(got)], numbers(2000).map(String))
        })
    )
  }

  promise(
    "a full queue that refuses is tried again until it takes the message, or the message fails as Nacked",
    (broker) =>
      Effect.gen(function*() {
        const amqp = yield* Live.connect(broker)
        yield* amqp.ensure({ queues: [{ name: "full", maxLength: 1, arguments: { "x-overflow": "reject-publish" } }] })
        yield* amqp.publish(message("full", "1"))
        const second = yield* Effect.forkChild(Effect.flip(amqp.publish(message("full", "2"))), {
          startImmediately: true
        })
        const error = yield* Fiber.join(second)
        assert.strictEqual(error.reason, "Nacked")
        assert.include(error.remedy, "full")
        const third = yield* Effect.forkChild(amqp.publish(message("full", "3")), { startImmediately: true })
        assert.deepStrictEqual((yield* take(amqp, "full", 2, 1)).map(text), ["1", "3"])
        assert.deepStrictEqual(yield* Fiber.join(third), { routed: true })
      })
  )

  promise(
    "what cannot be sent fails alone: too large, impossible names, forbidden user",
    (broker) =>
      Effect.gen(function*() {
        const amqp = yield* Live.connect(broker, { maxMessageBytes: 10 })
        yield* amqp.declareOrUse({ name: "q" })
        const reason = (body: string, key: string, more = {}) =>
          Effect.map(Effect.flip(amqp.publish(message(key, body, more))), (error) => error.reason)
        assert.strictEqual(yield* reason("12345678901", "q"), "TooLarge")
        assert.strictEqual(yield* reason("1", "k".repeat(300)), "Invalid")
        assert.strictEqual(
          yield* reason("1", "q", { properties: { headers: { long: "h".repeat(70_000) } } }),
          "Invalid"
        )
        assert.strictEqual(yield* reason("1", "q", { properties: { userId: "mallory" } }), "Channel")
        assert.deepStrictEqual(yield* amqp.publish(message("q", "1")), { routed: true })
      })
  )

  promise("interrupting who waits for a confirm un-sends nothing", (broker) =>
    Effect.gen(function*() {
      const amqp = yield* Live.connect(broker)
      yield* amqp.declareOrUse({ name: "sent" })
      const fiber = yield* Effect.forkChild(amqp.publish(message("sent", "x")), { startImmediately: true })
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual((yield* take(amqp, "sent", 1)).map(text), ["x"])
    }))
})

describe("Amqp on RabbitMQ: topology", () => {
  promise("uses what others declared otherwise, says so once, and disturbs nobody", (broker) => {
    const { layer, lines } = logged()
    return Effect.gen(function*() {
      const other = yield* Live.connect(broker, { instance: "other" })
      yield* other.ensure({
        exchanges: [{ name: "ex", type: "direct", durable: false }],
        queues: [{ name: "q", durable: false, maxLength: 7 }]
      })
      const amqp = yield* Live.connect(broker)
      const consumed = yield* Effect.forkChild(take(amqp, "q", 1), { startImmediately: true })
      const ours = {
        exchanges: [{ name: "ex", type: "direct" as const }],
        queues: [{ name: "q" }],
        bindings: [{ exchange: "ex", queue: "q", routingKey: "rk" }]
      }
      yield* amqp.ensure(ours)
      yield* amqp.ensure(ours)
      yield* amqp.declareOrUse({ name: "q", durable: true, arguments: { "x-max-priority": 3 } })
      assert.deepStrictEqual(yield* amqp.publish(message("rk", "hello", { exchange: "ex" })), { routed: true })
      assert.deepStrictEqual((yield* Fiber.join(consumed)).map(text), ["hello"])
      const queue = yield* ask(() => broker.queue("q"))
      assert.deepStrictEqual([queue?.durable, queue?.arguments["x-max-length"]], [false, 7])
      assert.isFalse((yield* ask(() => broker.exchange("ex")))?.durable)
      const told = lines.filter(({ text }) => text.includes("declared otherwise"))
      assert.deepStrictEqual(told.map(({ level }) => level), ["Info", "Info"])
      assert.deepStrictEqual(lines.filter(({ level }) => level === "Warn"), [])
    }).pipe(Effect.provide(layer))
  })

  promise("makes what nobody made, exactly as told, and the other side finds it", (broker) =>
    Effect.gen(function*() {
      const amqp = yield* Live.connect(broker, {
        topology: {
          exchanges: [{ name: "first", type: "topic", durable: false }],
          queues: [{ name: "mine", durable: false, expires: 60_000, arguments: { "x-max-priority": 5 } }],
          bindings: [{ exchange: "first", queue: "mine", routingKey: "a.*" }]
        }
      })
      assert.deepStrictEqual(yield* publishUntilRouted(amqp, message("a.b", "x", { exchange: "first" })), {
        routed: true
      })
      const queue = yield* ask(() => broker.queue("mine"))
      assert.deepStrictEqual([queue?.durable, queue?.arguments], [false, { "x-expires": 60_000, "x-max-priority": 5 }])
      const exchange = yield* ask(() => broker.exchange("first"))
      assert.deepStrictEqual([exchange?.durable, exchange?.type], [false, "topic"])
    }))

  promise("an impossible declaration fails by name, with the broker's words", (broker) =>
    Effect.gen(function*() {
      const amqp = yield* Live.connect(broker)
      const bad = { name: "bad", arguments: { "x-queue-type": "quorum", "x-max-priority": 3 } }
      for (const attempt of [amqp.ensure({ queues: [bad] }), amqp.declareOrUse(bad)]) {
        const error = yield* Effect.flip(attempt)
        assert.strictEqual(error.reason, "Topology")
        assert.include(error.message, "x-max-priority")
      }
      const missing = yield* Effect.flip(
        amqp.ensure({ bindings: [{ exchange: "nowhere", queue: "nothing", routingKey: "" }] })
      )
      assert.strictEqual(missing.reason, "Topology")
    }))

  promise(
    "an exclusive queue is ours: declared on the consuming connection and again on the next one",
    (broker) =>
      Effect.gen(function*() {
        const amqp = yield* Live.connect(broker)
        const topology = { queues: [{ name: "own", durable: false, exclusive: true }] }
        const seen: Array<string> = []
        const fiber = yield* amqp.consume("own", { prefetch: 1, topology }).pipe(
          Stream.tap((delivery) => Effect.andThen(delivery.ack, Effect.sync(() => seen.push(text(delivery))))),
          Stream.takeUntil((delivery) => text(delivery) === "2"),
          Stream.runDrain,
          Effect.forkChild({ startImmediately: true })
        )
        yield* publishUntilRouted(amqp, message("own", "1"))
        yield* ask(() => broker.cutAllConnections())
        yield* publishUntilRouted(amqp, message("own", "2"))
        yield* Fiber.join(fiber)
        assert.strictEqual(seen.at(-1), "2")
      })
  )
})

describe("Amqp on RabbitMQ: consuming", () => {
  promise("a consumer of a queue that is not there yet starts when it comes, and warns once", (broker) => {
    const { layer, lines } = logged()
    return Effect.gen(function*() {
      const amqp = yield* Live.connect(broker)
      const fiber = yield* Effect.forkChild(take(amqp, "later", 1), { startImmediately: true })
      yield* ask(() => Broker.until(async () => lines, (all) => all.some(({ text }) => text.includes("later"))))
      yield* amqp.declareOrUse({ name: "later" })
      yield* amqp.publish(message("later", "x"))
      assert.deepStrictEqual((yield* Fiber.join(fiber)).map(text), ["x"])
      assert.strictEqual(lines.filter(({ level, text }) => level === "Warn" && text.includes("later")).length, 1)
    }).pipe(Effect.provide(layer))
  })

  promise(
    "an ended stream leaves no consumer, and no channel once its deliveries are settled",
    (broker) =>
      Effect.gen(function*() {
        const amqp = yield* Live.connect(broker)
        yield* amqp.ensure({ queues: [{ name: "q" }] })
        yield* Effect.forEach(numbers(3), (n) => amqp.publish(message("q", String(n))))
        const channels = ask(() => broker.connections()).pipe(
          Effect.map((all) => all.find(({ name }) => name === "stoker/test/consume")?.channels ?? 0)
        )
        const before = yield* channels
        const held = yield* amqp.consume("q", { prefetch: 2 }).pipe(Stream.take(2), Stream.runCollect)
        assert.strictEqual((yield* ask(() => broker.queue("q")))?.consumers, 0)
        assert.strictEqual(yield* channels, before + 1)
        yield* Effect.forEach(held, (delivery) => delivery.ack)
        assert.strictEqual(yield* channels, before)
        yield* Live.awaitQueue(broker)("q", { ready: 1, unacked: 0 })
      })
  )

  promise(
    "what is still held when the scope closes goes back to the queue; what was acked just before does not",
    (broker) =>
      Effect.gen(function*() {
        yield* Effect.scoped(Effect.gen(function*() {
          const amqp = yield* Live.connect(broker)
          yield* amqp.ensure({ queues: [{ name: "q" }] })
          yield* Effect.forEach(numbers(5), (n) => amqp.publish(message("q", String(n))))
          const held = yield* amqp.consume("q", { prefetch: 5 }).pipe(Stream.take(5), Stream.runCollect)
          yield* Effect.forEach(held.slice(0, 2), (delivery) => delivery.ack)
        }))
        yield* Live.awaitQueue(broker)("q", { ready: 3, unacked: 0 })
      })
  )

  promise("a second exclusive consumer waits until the first is gone", (broker) =>
    Effect.gen(function*() {
      const amqp = yield* Live.connect(broker)
      yield* amqp.ensure({ queues: [{ name: "q" }] })
      const took = yield* Deferred.make<AmqpDelivery>()
      const first = yield* amqp.consume("q", { prefetch: 1, exclusive: true }).pipe(
        Stream.runForEach((delivery) => Effect.andThen(delivery.ack, Deferred.succeed(took, delivery))),
        Effect.forkChild({ startImmediately: true })
      )
      yield* amqp.publish(message("q", "1"))
      yield* Deferred.await(took)
      const second = yield* amqp.consume("q", { prefetch: 1, exclusive: true }).pipe(
        Stream.take(1),
        Stream.runCollect,
        Effect.forkChild({ startImmediately: true })
      )
      yield* Fiber.interrupt(first)
      yield* amqp.publish(message("q", "2"))
      assert.deepStrictEqual((yield* Fiber.join(second)).map(text), ["2"])
    }))
})

describe("Amqp on RabbitMQ: closing", () => {
  promise(
    "a closed scope has sent what was enqueued, leaves no connection and makes no noise",
    (broker) =>
      Effect.gen(function*() {
        const complaints = yield* Live.complaints
        const scope = yield* Scopes.make()
        const amqp = yield* Live.connect(broker).pipe(Scopes.provide(scope))
        yield* amqp.ensure({ queues: [{ name: "q" }] })
        yield* Effect.forkChild(Stream.runDrain(amqp.consume("other", { prefetch: 10 })), { startImmediately: true })
        const confirms = yield* Effect.forEach(numbers(300), (n) => amqp.enqueue(message("q", String(n))))
        assert.strictEqual((yield* ask(() => broker.connections())).length, 2)
        yield* Scopes.close(scope, Exit.void)
        yield* Effect.all(confirms)
        yield* ask(() => Broker.until(() => broker.connections(), (all) => all.length === 0))
        yield* Live.awaitQueue(broker)("q", { ready: 300, unacked: 0 })
        assert.isFalse((yield* amqp.status).connected)
        assert.deepStrictEqual(complaints, [])
      })
  )

  promise(
    "connections and consumers come back any number of times without a complaint",
    (broker) =>
      Effect.gen(function*() {
        const complaints = yield* Live.complaints
        const amqp = yield* Live.connect(broker)
        yield* amqp.ensure({ queues: [{ name: "q" }] })
        for (const n of numbers(5)) {
          yield* ask(() => n % 2 === 0 ? broker.cutAllConnections() : broker.closeAllConnections())
          yield* amqp.publish(message("q", String(n)))
          assert.include((yield* take(amqp, "q", 1)).map(text), String(n))
        }
        assert.deepStrictEqual(complaints, [])
      })
  )

  it.live("closing while the dial is still under way ends at once", () =>
    Effect.gen(function*() {
      const complaints = yield* Live.complaints
      const scope = yield* Scopes.make()
      // Takes connections and says nothing.
      const { createServer } = yield* ask(() => import("node:net"))
      const server = createServer().listen(0, "127.0.0.1")
      yield* ask(() => new Promise((resolve) => server.once("listening", resolve)))
      const address = server.address()
      const port = typeof address === "object" && address !== null ? address.port : 0
      const sockets = new Promise<void>((resolve) =>
        server.once("connection", (socket) => {
          socket.on("close", () => resolve())
          socket.on("error", () => {})
          socket.resume()
        })
      )
      yield* Live.connect({ url: `amqp://127.0.0.1:${port}` }).pipe(Scopes.provide(scope))
      yield* ask(() => new Promise((resolve) => server.once("connection", resolve)))
      yield* Effect.timeout(Scopes.close(scope, Exit.void), "1 second")
      yield* Effect.timeout(ask(() => sockets), "1 second")
      server.close()
      assert.deepStrictEqual(complaints, [])
    }))
})

describe("Amqp on RabbitMQ: words", () => {
  it.live("nobody at home: builds at once, says so once, in words that help, without the password", () => {
    const { layer, lines } = logged()
    return Effect.gen(function*() {
      const amqp = yield* Live.connect({ url: "amqp://user:s3cret@127.0.0.1:1/v" })
      const now = yield* until(amqp, (status) => status.lastError !== undefined)
      const error = now._tag === "Some" ? now.value.lastError : undefined
      assert.strictEqual(error?.reason, "Connect")
      assert.include(error?.message, "Is RabbitMQ running at 127.0.0.1:1? Check AMQP_URL")
      yield* ask(() =>
        Broker.until(async () => lines, (all) => all.filter(({ level }) => level === "Debug").length > 2)
      )
      // One for each of the two connections.
      assert.strictEqual(lines.filter(({ level }) => level === "Warn").length, 2)
      assert.notInclude(JSON.stringify([lines, error, yield* amqp.status]), "s3cret")
    }).pipe(Effect.scoped, Effect.provide(layer), Live.debug)
  })

  it.live("a URL that is none fails the layer, without repeating it", () =>
    Effect.gen(function*() {
      for (const url of ["nonsense s3cret", "http://user:s3cret@host/"]) {
        const exit = yield* Effect.exit(Effect.scoped(Live.connectOrFail({ url })))
        assert.isTrue(Exit.isFailure(exit))
        assert.include(String(exit), "amqp://user:password@host:port/vhost")
        assert.notInclude(JSON.stringify(exit) + String(exit), "s3cret")
      }
    }))

  promise("a wrong password and a wrong vhost are told apart", (broker) =>
    Effect.gen(function*() {
      const words = (url: string) =>
        Effect.gen(function*() {
          const amqp = yield* Live.connect({ url })
          const now = yield* until(amqp, (status) => status.lastError !== undefined)
          return now._tag === "Some" ? String(now.value.lastError?.remedy) : ""
        }).pipe(Effect.scoped)
      assert.include(yield* words(broker.url.replace("guest:guest", "guest:wrong")), "password")
      assert.include(yield* words(`${broker.url}-none`), "virtual host")
    }))
})
