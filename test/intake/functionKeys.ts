/** Events that start functions, as both brokers have them: the promises are those of the dialect. */
import type { it } from "@effect/vitest"
import { assert, describe } from "@effect/vitest"
import { Effect, Queue, type Scope } from "effect"
import type { Amqp, AmqpMessage } from "../../src/layers/amqp/Amqp.ts"
import type { StokerDelivery } from "../../src/layers/intake/Stoker.ts"
import { Outcome } from "../../src/schemas/Outcome.ts"

/** A broker, a door that is open, and what lies in the dead queue. */
export interface Subject {
  readonly amqp: Pick<Amqp["Service"], "publish">
  readonly arrived: Queue.Dequeue<StokerDelivery>
  /** Waits until there are so many, and shows them. They stay there. */
  readonly letters: (count: number) => Effect.Effect<
    ReadonlyArray<{ readonly body: string; readonly headers: Readonly<Record<string, unknown>> }>
  >
  /** Lets so much time pass, where it does not pass by itself. */
  readonly pass: (millis: number) => Effect.Effect<void>
}

interface Event {
  readonly key: string
  readonly args?: unknown
  readonly properties?: AmqpMessage["properties"]
}

export const suite = (name: string, run: typeof it.live, open: Effect.Effect<Subject, unknown, Scope.Scope>) => {
  const promise = (
    title: string,
    test: (subject: Subject & { readonly publish: (event: Event) => Effect.Effect<boolean, unknown> }) => Effect.Effect<
      void,
      unknown,
      Scope.Scope
    >
  ) =>
    run(title, () =>
      Effect.scoped(Effect.flatMap(open, (subject) =>
        test({
          ...subject,
          publish: ({ args, key, properties }) =>
            Effect.map(
              subject.amqp.publish({
                exchange: "stoker.functions",
                routingKey: key,
                body: new TextEncoder().encode(args === undefined ? "" : JSON.stringify(args)),
                properties: { messageId: "m1", ...properties }
              }),
              ({ routed }) => routed
            )
        }))))

  describe(`events that start functions: ${name}`, { timeout: 60_000 }, () => {
    promise(
      "the body is the arguments, the key says the function and the priority",
      ({ arrived, publish }) =>
        Effect.gen(function*() {
          for (const [key, priority] of [["say", "normal"], ["say.high", "high"], ["say.low", "low"]] as const) {
            assert.isTrue(yield* publish({ key: `function.${key}`, args: { word: key } }))
            const delivery = yield* Queue.take(arrived)
            assert.strictEqual(delivery.priority, priority)
            assert.deepStrictEqual<unknown>(delivery.job, {
              id: "m1",
              owner: "stoker",
              intake: "stoker",
              function: "say",
              args: { word: key },
              limits: {}
            })
            yield* delivery.ack
          }
          yield* publish({ key: "function.noop" })
          const { ack, job } = yield* Queue.take(arrived)
          assert.deepStrictEqual<unknown>([job.function, job.args], ["noop", {}])
          yield* ack
        })
    )

    promise(
      "an id that no job can have becomes one, the same each time",
      ({ arrived, publish }) =>
        Effect.gen(function*() {
          const ids = []
          for (const messageId of ["urn:uuid:1", "urn:uuid:1", "urn:uuid:2"]) {
            yield* publish({ key: "function.noop", properties: { messageId } })
            const { ack, job } = yield* Queue.take(arrived)
            ids.push(job.id)
            yield* ack
          }
          assert.strictEqual(ids[0], ids[1])
          assert.notStrictEqual(ids[0], ids[2])
          assert.match(ids[0] ?? "", /^m-[0-9a-f]{40}$/)
        })
    )

    promise(
      "a key that names no function is kept with the reason, and none is dropped",
      ({ arrived, letters, publish }) =>
        Effect.gen(function*() {
          const keys = ["function", "function.say.urgent", "order.created", "function.NO"]
          for (const [index, key] of keys.entries()) {
            assert.isTrue(yield* publish({ key, args: { key } }), key)
            yield* letters(index + 1)
          }
          const kept = yield* letters(keys.length)
          assert.deepStrictEqual(kept.map(({ body }) => body), keys.map((key) => JSON.stringify({ key })))
          assert.include(String(kept[0]?.headers["x-stoker-reason"]), "its routing key \"function\" names no function")
          assert.include(String(kept[0]?.headers["x-stoker-remedy"]), "function.<name>")
          assert.strictEqual(kept[2]?.headers["x-stoker-routing-key"], "order.created")
          assert.include(String(kept[3]?.headers["x-stoker-reason"]), "a function: lower-case letters")
          // The door goes on.
          yield* publish({ key: "function.noop" })
          yield* Effect.flatMap(Queue.take(arrived), ({ ack }) => ack)
        })
    )

    promise(
      "what its function rejects is kept too: nobody may be listening",
      ({ arrived, letters, publish }) =>
        Effect.gen(function*() {
          yield* publish({ key: "function.sya", args: { word: "x" } })
          const delivery = yield* Queue.take(arrived)
          const outcome = Outcome.cases.Rejected.make({
            reason: "there is no such function",
            remedy: "Use one of: say."
          })
          assert.isFalse(yield* delivery.retry(outcome))
          yield* delivery.ack
          const [letter] = yield* letters(1)
          assert.strictEqual(letter?.headers["x-stoker-reason"], "there is no such function")
          assert.strictEqual(
            letter?.headers["x-stoker-remedy"],
            "Use one of: say. Then publish it anew, under another message id."
          )
          // In the whole form its sender is told, and that is all.
          yield* publish({ key: "function.say", args: {} })
          const other = yield* Queue.take(arrived)
          assert.isFalse(yield* other.retry(Outcome.cases.Exited.make({ phase: "run", code: 1 })))
          yield* other.ack
          yield* letters(1)
        })
    )

    promise(
      "one that waits, or is tried again, is still for its function",
      ({ arrived, pass, publish }) =>
        Effect.gen(function*() {
          yield* publish({
            key: "function.say.high",
            args: { word: "later" },
            properties: { headers: { "x-stoker-delay": 600 } }
          })
          for (const attempt of [1, 2]) {
            yield* pass(3000)
            const delivery = yield* Queue.take(arrived)
            assert.strictEqual(delivery.attempt, attempt)
            assert.strictEqual(delivery.priority, "high")
            assert.deepStrictEqual<unknown>(
              [delivery.job.id, delivery.job.function, delivery.job.args],
              ["m1", "say", { word: "later" }]
            )
            const failed = Outcome.cases.SandboxFailed.make({ driver: "test", reason: "no room", remedy: "none" })
            if (attempt === 1) assert.isTrue(yield* delivery.retry(failed))
            yield* delivery.ack
          }
        })
    )
  })
}
