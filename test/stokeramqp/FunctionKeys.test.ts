import { assert, beforeAll, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Queue, Redacted, Stream } from "effect"
import { DeadLetters } from "../../src/layers/deadletters/DeadLetters.ts"
import * as DeadLettersAmqp from "../../src/layers/deadletters/DeadLettersAmqp.ts"
import { finished, type Script } from "../../src/layers/executor/ExecutorTest.ts"
import { Outcome } from "../../src/schemas/Outcome.ts"
import { type Subject, suite } from "../intake/functionKeys.ts"
import { Broker } from "../support/Broker.ts"
import { acquireBroker, acquireRaw, amqpOf, ask, queueIs, served, silent, startIntake, startWorker } from "./Place.ts"

beforeAll(async () => {
  await using broker = await Broker.acquire()
  assert.include(broker.url, broker.vhost)
}, Broker.startMillis)

/** Every queue's door is open, so all exchanges and bindings are there. */
const opened = (broker: Broker) =>
  Effect.forEach(["stoker.jobs", "stoker.jobs.high", "stoker.jobs.low"], (queue) => served(broker, queue))

const open = Effect.gen(function*() {
  const broker = yield* acquireBroker
  const { arrived } = yield* startIntake(broker)
  yield* opened(broker)
  const raw = yield* acquireRaw(broker)
  const subject: Subject = {
    amqp: yield* amqpOf(broker),
    arrived,
    letters: (count) =>
      Effect.andThen(
        queueIs(broker, "stoker.dead", count),
        ask(async () => {
          const letters = []
          while (letters.length < count) {
            const letter = await raw.channel.get("stoker.dead", { noAck: false })
            if (letter === false) break
            letters.push({ body: letter.content.toString(), headers: letter.properties.headers ?? {} })
          }
          await raw.channel.recover()
          return letters
        })
      ),
    pass: () => Effect.void
  }
  return subject
})

suite("RabbitMQ", it.live, open)

const hello: Script = () =>
  Stream.make(
    { _tag: "Ready" as const, place: "/fake", provisionMicros: 1 },
    finished(Outcome.cases.Exited.make({ phase: "run", code: 0 }))
  )

describe("events that start functions, at a worker", { timeout: 60_000 }, () => {
  it.live("a client that knows only AMQP starts one, and hears of it at its reply-to", () =>
    Effect.gen(function*() {
      const broker = yield* acquireBroker
      yield* startWorker(broker, { instance: "w1", script: hello })
      yield* opened(broker)
      const raw = yield* acquireRaw(broker)
      const replyTo = yield* ask(() => raw.listen())
      const publish = (key: string, args: unknown, messageId: string) =>
        raw.channel.publish("stoker.functions", key, Buffer.from(JSON.stringify(args)), { messageId, replyTo })
      publish("function.say", { word: "hello" }, "e1")
      yield* ask(() => raw.until(3))
      assert.deepInclude(raw.events().at(-1), {
        event: "ended",
        id: "e1",
        outcome: { _tag: "Exited", phase: "run", code: 0 }
      })
      // The same event twice is one job.
      publish("function.say", { word: "hello" }, "e1")
      yield* ask(() => raw.until(5))
      assert.deepInclude(raw.events().at(-1), { event: "ended", id: "e1", attempt: 1 })
      publish("function.nothing", {}, "e2")
      publish("function.say", { wrod: "hello" }, "e3")
      yield* queueIs(broker, "stoker.dead", 2)
      const ended = raw.events().filter(({ event }) => event === "ended")
      const reasons = new Map(ended.map(({ id, outcome }) => [id, outcome as { readonly reason?: string }]))
      assert.include(reasons.get("e2")?.reason, "there is no such function")
      assert.include(reasons.get("e3")?.reason, "wrod")
      yield* queueIs(broker, "stoker.jobs", 0)
    }))

  it.live("a letter sent again goes by its key again, for the function it was for", () =>
    Effect.gen(function*() {
      const broker = yield* acquireBroker
      const { arrived } = yield* startIntake(broker)
      yield* opened(broker)
      const raw = yield* acquireRaw(broker)
      const publish = (key: string, options: object) =>
        raw.channel.publish("stoker.functions", key, Buffer.from("{\"word\":\"x\"}"), { messageId: key, ...options })
      publish("function.say.high", {})
      // One that came by a wait queue has no key any more.
      publish("function.say.low", { headers: { "x-stoker-delay": 300 } })
      for (let n = 0; n < 2; n++) yield* Effect.flatMap(Queue.take(arrived), ({ reject }) => reject("a test"))
      yield* queueIs(broker, "stoker.dead", 2)
      const letters = yield* Effect.map(
        Layer.build(
          DeadLettersAmqp.layer({ url: Redacted.make(broker.url), name: "test" }).pipe(Layer.provide(silent))
        ),
        (context) => Context.get(context, DeadLetters)
      )
      assert.lengthOf(yield* letters.retry("all"), 2)
      const again = new Map<string, string>()
      while (again.size < 2) {
        const { ack, job, priority } = yield* Queue.take(arrived)
        again.set(job.id, `${job.function} ${priority} ${JSON.stringify(job.args)}`)
        yield* ack
      }
      assert.deepStrictEqual(Object.fromEntries(again), {
        "function.say.high": "say high {\"word\":\"x\"}",
        "function.say.low": "say low {\"word\":\"x\"}"
      })
      yield* queueIs(broker, "stoker.dead", 0)
    }).pipe(Effect.scoped))
})
