/** What every Amqp does, called by one small file per implementation. */
import type { it } from "@effect/vitest"
import { assert, describe } from "@effect/vitest"
import type { Scope } from "effect"
import { Effect, Fiber, Stream } from "effect"
import type { Amqp, AmqpDelivery, AmqpMessage } from "../../src/layers/amqp/Amqp.ts"

/** One transport on one broker, and the hand that troubles it. */
export interface Subject {
  readonly amqp: Amqp["Service"]
  /** Ends all its connections; it finds its way back by itself. */
  readonly cut: Effect.Effect<void>
  readonly deleteQueue: (name: string) => Effect.Effect<void>
  /** Waits until the queue has so many messages ready and unacked. */
  readonly awaitQueue: (name: string, expected: { readonly ready: number; readonly unacked: number }) => Effect.Effect<
    void
  >
}

export interface Implementation {
  readonly name: string
  /** A transport whose life is the scope's. */
  readonly open: Effect.Effect<Subject, never, Scope.Scope>
  readonly run: typeof it.live
}

export const text = (delivery: AmqpDelivery): string => new TextDecoder().decode(delivery.body)

export const message = (routingKey: string, body: string, more: Partial<AmqpMessage> = {}): AmqpMessage => ({
  exchange: "",
  routingKey,
  body: new TextEncoder().encode(body),
  ...more
})

export const numbers = (count: number): ReadonlyArray<number> => Array.from({ length: count }, (_, index) => index)

/** Takes so many, acking each. */
export const take = (amqp: Amqp["Service"], queue: string, count: number, prefetch = 100) =>
  amqp.consume(queue, { prefetch }).pipe(
    Stream.take(count),
    Stream.tap((delivery) => delivery.ack),
    Stream.runCollect
  )

export const suite = ({ name, open, run }: Implementation) => {
  const promise = (
    title: string,
    test: (subject: Subject) => Effect.Effect<void, unknown, Scope.Scope>
  ) => run(title, () => Effect.scoped(Effect.flatMap(open, test)))

  describe(`Amqp: ${name}`, () => {
    promise(
      "a publish completes with its confirm and says whether a queue took it",
      ({ amqp }) =>
        Effect.gen(function*() {
          yield* amqp.declareOrUse({ name: "taken" })
          assert.deepStrictEqual(yield* amqp.publish(message("taken", "a")), { routed: true })
          assert.deepStrictEqual(yield* amqp.publish(message("nobody", "b")), { routed: false })
          assert.deepStrictEqual(yield* amqp.publish(message("nobody", "c", { mandatory: false })), { routed: true })
        })
    )

    promise("each message of a pipelined burst learns whether it was routed", ({ amqp }) =>
      Effect.gen(function*() {
        yield* amqp.declareOrUse({ name: "even" })
        const confirms = yield* Effect.forEach(
          numbers(100),
          (n) => amqp.enqueue(message(n % 2 === 0 ? "even" : "odd", String(n)))
        )
        const receipts = yield* Effect.all(confirms)
        assert.deepStrictEqual(receipts.map(({ routed }) => routed), numbers(100).map((n) => n % 2 === 0))
      }))

    promise("what goes in comes out: bytes, properties and headers", ({ amqp }) =>
      Effect.gen(function*() {
        yield* amqp.ensure({
          exchanges: [{ name: "ex", type: "direct" }],
          queues: [{ name: "whole" }],
          bindings: [{ exchange: "ex", queue: "whole", routingKey: "rk" }]
        })
        const body = Uint8Array.from(numbers(256))
        const properties = {
          contentType: "application/json",
          correlationId: "c-1",
          replyTo: "back",
          messageId: "m-1",
          type: "job",
          priority: 3,
          timestamp: 1_700_000_000,
          headers: { attempt: 2, flag: true, word: "w" }
        }
        yield* amqp.publish({ exchange: "ex", routingKey: "rk", body, properties })
        const [got] = yield* take(amqp, "whole", 1)
        assert.isDefined(got)
        assert.deepStrictEqual(Array.from(got.body), Array.from(body))
        assert.deepStrictEqual<unknown>({ ...got.properties, headers: { ...got.properties.headers } }, properties)
        assert.deepStrictEqual([got.exchange, got.routingKey, got.queue, got.redelivered], ["ex", "rk", "whole", false])
      }))

    promise(
      "a topic's words are matched, and what no binding takes goes to the alternate exchange",
      ({ amqp }) =>
        Effect.gen(function*() {
          yield* amqp.ensure({
            exchanges: [
              { name: "rest", type: "fanout" },
              { name: "topic", type: "topic", alternate: "rest" },
              { name: "strict", type: "topic" }
            ],
            queues: [{ name: "stars" }, { name: "hashes" }, { name: "others" }],
            bindings: [
              { exchange: "topic", queue: "stars", routingKey: "a.*" },
              { exchange: "topic", queue: "stars", routingKey: "a.*.z" },
              { exchange: "topic", queue: "stars", routingKey: "a.b.*" },
              { exchange: "topic", queue: "hashes", routingKey: "x.#.y" },
              { exchange: "rest", queue: "others", routingKey: "" },
              { exchange: "strict", queue: "others", routingKey: "a" }
            ]
          })
          const keys = ["a.b", "a", "a.b.z", "a.b.c.z", "x.y", "x.1.2.y", "x.1.2", "ab", "A.b", "a."]
          for (const key of keys) {
            assert.deepStrictEqual(yield* amqp.publish(message(key, key, { exchange: "topic" })), { routed: true })
          }
          assert.deepStrictEqual(yield* amqp.publish(message("b", "b", { exchange: "strict" })), { routed: false })
          const came = Effect.fnUntraced(function*(queue: string, count: number) {
            const deliveries = yield* take(amqp, queue, count)
            // Where it was sent to stays to be seen, also when it came the other way.
            assert.isTrue(
              deliveries.every(({ exchange, routingKey }, index) =>
                exchange === "topic" && routingKey === text(deliveries[index] ?? assert.fail("it is not there"))
              )
            )
            return deliveries.map(text)
          })
          assert.deepStrictEqual(yield* came("stars", 3), ["a.b", "a.b.z", "a."])
          assert.deepStrictEqual(yield* came("hashes", 2), ["x.y", "x.1.2.y"])
          assert.deepStrictEqual(yield* came("others", 5), ["a", "a.b.c.z", "x.1.2", "ab", "A.b"])
        })
    )

    promise("messages come out in the order they were enqueued", ({ amqp }) =>
      Effect.gen(function*() {
        yield* amqp.declareOrUse({ name: "ordered" })
        const confirms = yield* Effect.forEach(numbers(500), (n) => amqp.enqueue(message("ordered", String(n))))
        yield* Effect.all(confirms)
        assert.deepStrictEqual((yield* take(amqp, "ordered", 500)).map(text), numbers(500).map(String))
      }))

    promise(
      "a message to an exchange that does not exist fails alone, its neighbours arrive",
      ({ amqp }) =>
        Effect.gen(function*() {
          yield* amqp.declareOrUse({ name: "neighbours" })
          const before = yield* Effect.forEach(numbers(20), (n) => amqp.enqueue(message("neighbours", String(n))))
          const bad = yield* amqp.enqueue(message("x", "bad", { exchange: "missing" }))
          const after = yield* Effect.forEach(numbers(20), (n) => amqp.enqueue(message("neighbours", String(n + 20))))
          const error = yield* Effect.flip(bad)
          assert.strictEqual(error.reason, "Channel")
          assert.include(error.message, "missing")
          assert.include(error.remedy, "Declare exchange missing")
          yield* Effect.all([...before, ...after])
          yield* amqp.publish(message("neighbours", "end"))
          const got = yield* amqp.consume("neighbours", { prefetch: 100 }).pipe(
            Stream.tap((delivery) => delivery.ack),
            Stream.map(text),
            Stream.takeWhile((body) => body !== "end"),
            Stream.runCollect
          )
          // None is missing; what was in flight with the bad one may have come twice.
          assert.deepStrictEqual([...new Set(got)], numbers(40).map(String))
        })
    )

    promise(
      "no more than the prefetch is outstanding, and none is dropped",
      ({ amqp, awaitQueue }) =>
        Effect.gen(function*() {
          yield* amqp.declareOrUse({ name: "bounded" })
          yield* Effect.all(yield* Effect.forEach(numbers(50), (n) => amqp.enqueue(message("bounded", String(n)))))
          const held: Array<AmqpDelivery> = []
          const fiber = yield* amqp.consume("bounded", { prefetch: 7 }).pipe(
            Stream.runForEach((delivery) => Effect.sync(() => held.push(delivery))),
            Effect.forkChild
          )
          yield* awaitQueue("bounded", { ready: 43, unacked: 7 })
          const seen: Array<string> = []
          while (seen.length < 50) {
            const next = held.shift()
            if (next === undefined) {
              yield* Effect.yieldNow
              continue
            }
            seen.push(text(next))
            yield* next.ack
          }
          assert.deepStrictEqual(seen, numbers(50).map(String))
          yield* Fiber.interrupt(fiber)
        })
    )

    promise(
      "settling is once: reject dead-letters, giveBack brings it again, later settling does nothing",
      ({ amqp }) =>
        Effect.gen(function*() {
          yield* amqp.ensure({
            exchanges: [{ name: "dlx", type: "fanout" }],
            queues: [{ name: "dead" }, { name: "settled", arguments: { "x-dead-letter-exchange": "dlx" } }],
            bindings: [{ exchange: "dlx", queue: "dead", routingKey: "" }]
          })
          yield* amqp.publish(message("settled", "one"))
          const seen: Array<boolean> = []
          yield* amqp.consume("settled", { prefetch: 1 }).pipe(
            Stream.take(2),
            Stream.runForEach((delivery) => {
              seen.push(delivery.redelivered)
              const act = seen.length === 1 ? delivery.giveBack : delivery.reject
              return Effect.all([act, delivery.ack, delivery.reject, delivery.giveBack], { discard: true })
            })
          )
          assert.deepStrictEqual(seen, [false, true])
          assert.deepStrictEqual((yield* take(amqp, "dead", 1)).map(text), ["one"])
          // The connection survived all of that.
          assert.deepStrictEqual(yield* amqp.publish(message("dead", "x")), { routed: true })
        })
    )

    promise(
      "unsettled deliveries come again after a lost connection, and settling the old ones does nothing",
      (subject) =>
        Effect.gen(function*() {
          const { amqp, cut } = subject
          yield* amqp.declareOrUse({ name: "again" })
          yield* Effect.forEach(numbers(10), (n) => amqp.publish(message("again", String(n))))
          const old: Array<AmqpDelivery> = []
          const got = yield* amqp.consume("again", { prefetch: 10 }).pipe(
            Stream.mapEffect(Effect.fnUntraced(function*(delivery) {
              if (!delivery.redelivered) {
                old.push(delivery)
                if (old.length === 10) yield* cut
                return undefined
              }
              yield* Effect.forEach(old, (stale) => stale.ack)
              yield* delivery.ack
              return text(delivery)
            })),
            Stream.filter((body) => body !== undefined),
            Stream.take(10),
            Stream.runCollect
          )
          assert.deepStrictEqual(got, numbers(10).map(String))
          yield* subject.awaitQueue("again", { ready: 0, unacked: 0 })
        })
    )

    promise(
      "an ended stream gives back what was not pulled; what was pulled can still be acked",
      (subject) =>
        Effect.gen(function*() {
          const { amqp, awaitQueue } = subject
          yield* amqp.declareOrUse({ name: "drained" })
          yield* Effect.forEach(numbers(10), (n) => amqp.publish(message("drained", String(n))))
          const pulled = yield* amqp.consume("drained", { prefetch: 8 }).pipe(Stream.take(3), Stream.runCollect)
          yield* awaitQueue("drained", { ready: 7, unacked: 3 })
          yield* Effect.forEach(pulled, (delivery) => delivery.ack)
          yield* awaitQueue("drained", { ready: 7, unacked: 0 })
          assert.deepStrictEqual((yield* take(amqp, "drained", 7)).map(text), numbers(10).slice(3).map(String))
        })
    )

    promise(
      "a queue deleted under its consumer comes back with its topology, and so does the consumer",
      (subject) =>
        Effect.gen(function*() {
          const { amqp, deleteQueue } = subject
          const topology = { queues: [{ name: "undermined" }] }
          const seen: Array<string> = []
          const fiber = yield* amqp.consume("undermined", { prefetch: 5, topology }).pipe(
            Stream.tap((delivery) => delivery.ack),
            Stream.tap((delivery) => Effect.sync(() => seen.push(text(delivery)))),
            Stream.takeUntil((delivery) => text(delivery) === "after"),
            Stream.runDrain,
            Effect.forkChild({ startImmediately: true })
          )
          yield* publishUntilRouted(amqp, message("undermined", "before"))
          yield* awaitLength(seen, 1)
          yield* deleteQueue("undermined")
          yield* publishUntilRouted(amqp, message("undermined", "after"))
          yield* Fiber.join(fiber)
          assert.deepStrictEqual(seen, ["before", "after"])
        })
    )

    promise(
      "publishes and declares of a lost connection are done on the next",
      ({ amqp, awaitQueue, cut }) =>
        Effect.gen(function*() {
          yield* amqp.ensure({ queues: [{ name: "kept", durable: true }] })
          yield* cut
          yield* Effect.all([
            amqp.publish(message("kept", "a")),
            amqp.declareOrUse({ name: "fresh" }),
            amqp.ensure({ queues: [{ name: "kept" }] })
          ], { concurrency: "unbounded" })
          yield* awaitQueue("kept", { ready: 1, unacked: 0 })
          yield* awaitQueue("fresh", { ready: 0, unacked: 0 })
        })
    )

    run("a closed scope ends the streams, and publishing afterwards fails by name", () =>
      Effect.gen(function*() {
        const { amqp, fiber } = yield* Effect.scoped(Effect.gen(function*() {
          const { amqp } = yield* open
          yield* amqp.declareOrUse({ name: "closing" })
          const fiber = yield* Effect.forkDetach(Stream.runDrain(amqp.consume("closing", { prefetch: 1 })))
          yield* amqp.publish(message("closing", "x"))
          return { amqp, fiber }
        }))
        yield* Fiber.join(fiber)
        const error = yield* Effect.flip(amqp.publish(message("closing", "late")))
        assert.strictEqual(error.reason, "Closed")
        for (const declare of [amqp.ensure({ queues: [{ name: "x" }] }), amqp.declareOrUse({ name: "x" })]) {
          assert.strictEqual((yield* Effect.flip(declare)).reason, "Closed")
        }
        assert.deepStrictEqual(yield* Stream.runCollect(amqp.consume("closing", { prefetch: 1 })), [])
      }))
  })
}

/** A queue that is on its way back takes nothing yet. */
export const publishUntilRouted = (amqp: Amqp["Service"], sent: AmqpMessage) =>
  amqp.publish(sent).pipe(Effect.repeat({ until: ({ routed }) => routed }))

export const awaitLength = (list: ReadonlyArray<unknown>, length: number) =>
  Effect.yieldNow.pipe(Effect.repeat({ until: () => list.length >= length }))
