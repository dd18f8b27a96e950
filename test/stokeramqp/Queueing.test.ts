import { assert, beforeAll, describe, it } from "@effect/vitest"
import { Effect, Queue } from "effect"
import { jobsTopology, queueOf, waits } from "../../src/layers/intake/StokerTopology.ts"
import { Outcome } from "../../src/schemas/Outcome.ts"
import { priorities } from "../../src/schemas/Terms.ts"
import { Broker } from "../support/Broker.ts"
import { acquireBroker, acquireRaw, amqpOf, ask, queueIs, say1, served, startIntake } from "./Place.ts"

beforeAll(async () => {
  await using broker = await Broker.acquire()
  assert.include(broker.url, broker.vhost)
}, Broker.startMillis)

const failed = Outcome.cases.SandboxFailed.make({ driver: "test", reason: "no room", remedy: "none" })

describe("Stoker's queues", { timeout: 60_000 }, () => {
  it.live("the high queue comes first under load, and the low one is not starved", () =>
    Effect.gen(function*() {
      const broker = yield* acquireBroker
      const amqp = yield* amqpOf(broker)
      for (const level of priorities) yield* amqp.ensure(jobsTopology(queueOf(level)))
      const raw = yield* acquireRaw(broker)
      for (const level of ["low", "normal", "high"] as const) {
        for (let n = 0; n < 40; n++) raw.send(say1(`${level}-${n}`), {}, queueOf(level))
      }
      for (const level of priorities) yield* queueIs(broker, queueOf(level), 40)
      // One slot: the next is taken when the one before is acked.
      const { arrived } = yield* startIntake(broker, { slots: 1, weights: { high: 16, normal: 4, low: 1 } })
      for (const level of priorities) yield* served(broker, queueOf(level))
      const order: Array<string> = []
      while (order.length < 120) {
        const delivery = yield* Queue.take(arrived)
        order.push(delivery.job.id.split("-")[0] ?? "")
        yield* delivery.ack
      }
      const among = (first: number, level: string) => order.slice(0, first).filter((name) => name === level).length
      assert.isAbove(among(40, "high"), 25)
      assert.isAbove(among(60, "normal"), 5)
      assert.isAtLeast(among(60, "low"), 1)
      assert.strictEqual(among(120, "low"), 40)
    }).pipe(Effect.scoped))

  it.live("delayed jobs come in the order of their times, none too early, whatever the order of sending", () =>
    Effect.gen(function*() {
      const broker = yield* acquireBroker
      const { arrived } = yield* startIntake(broker)
      yield* served(broker)
      const raw = yield* acquireRaw(broker)
      const sent = Date.now()
      raw.send(say1("late"), { headers: { "x-stoker-delay": 2200 } })
      raw.send(say1("long"), { headers: { "x-stoker-delay": "3700000" } })
      raw.send(say1("soon"), { headers: { "x-stoker-not-before": sent + 600 }, userId: "guest" })
      raw.send(say1("now"))
      const came: Array<readonly [string, number, string]> = []
      for (let n = 0; n < 3; n++) {
        const delivery = yield* Queue.take(arrived)
        came.push([delivery.job.id, Date.now() - sent, delivery.job.owner])
        yield* delivery.ack
      }
      assert.deepStrictEqual(came.map(([id]) => id), ["now", "soon", "late"])
      assert.isAtLeast(came[1]?.[1] ?? 0, 600)
      assert.isAtLeast(came[2]?.[1] ?? 0, 2200)
      assert.isBelow(came[2]?.[1] ?? 0, 4500)
      // The owner the broker vouched for goes with the job through the wait queues.
      assert.deepStrictEqual(came.map(([, , owner]) => owner), ["stoker", "guest", "stoker"])
      yield* queueIs(broker, "stoker.jobs", 0)
      yield* queueIs(broker, "stoker.wait.3600000", 1)
      const queues = yield* ask(() => broker.queues())
      const waiting = queues.filter(({ name }) => name.startsWith("stoker.wait."))
      assert.isTrue(waiting.every(({ name, type }) => type === "quorum" && waits.includes(Number(name.slice(12)))))
      assert.isUndefined(yield* ask(() => broker.queue("stoker.dead").then((queue) => queue?.ready || undefined)))
    }).pipe(Effect.scoped))

  it.live("a job nobody took in time is not run: it is told as expired, and kept", () =>
    Effect.gen(function*() {
      const broker = yield* acquireBroker
      const amqp = yield* amqpOf(broker)
      yield* amqp.ensure(jobsTopology("stoker.jobs"))
      const raw = yield* acquireRaw(broker)
      const replyTo = yield* ask(() => raw.listen())
      const reply = { replyTo, correlationId: "1" }
      raw.send(say1("old"), {
        ...reply,
        headers: { "x-stoker-ttl": 1000, "x-stoker-sent-at": Date.now() - 2000 }
      })
      raw.send(say1("fresh"), { headers: { "x-stoker-ttl": 60_000, "x-stoker-sent-at": Date.now() } })
      raw.send(say1("timeless"), { headers: { "x-stoker-ttl": 60_000 } })
      const { arrived } = yield* startIntake(broker)
      const delivery = yield* Queue.take(arrived)
      assert.strictEqual(delivery.job.id, "fresh")
      yield* delivery.ack
      yield* ask(() => raw.until(1))
      assert.deepInclude(raw.events()[0], {
        event: "ended",
        id: "old",
        outcome: {
          _tag: "Rejected",
          reason: "expired in the queue",
          remedy: "Send it again with more time to live, or start more workers."
        }
      })
      yield* queueIs(broker, "stoker.dead", 2)
      yield* queueIs(broker, "stoker.jobs", 0)
    }).pipe(Effect.scoped))

  it.live("a failed try is tried again, later each time, and after the last one it is kept", () =>
    Effect.gen(function*() {
      const broker = yield* acquireBroker
      const { arrived } = yield* startIntake(broker)
      yield* served(broker)
      const raw = yield* acquireRaw(broker)
      raw.send(say1("j1"), {
        correlationId: "c",
        headers: { "x-stoker-max-attempts": 3, "x-stoker-retry-backoff": 300, mine: "kept" }
      })
      const times: Array<number> = []
      for (const attempt of [1, 2, 3]) {
        const delivery = yield* Queue.take(arrived)
        times.push(Date.now())
        assert.strictEqual(delivery.attempt, attempt)
        assert.deepInclude(delivery.reply, { correlationId: "c" })
        assert.isFalse(yield* delivery.retry(Outcome.cases.Exited.make({ phase: "run", code: 1 })))
        assert.strictEqual(yield* delivery.retry(failed), attempt < 3)
        yield* delivery.ack
      }
      const [first = 0, second = 0, third = 0] = times
      assert.isAtLeast(second - first, 300)
      assert.isAtLeast(third - second, 600)
      yield* queueIs(broker, "stoker.dead", 1)
      yield* queueIs(broker, "stoker.jobs", 0)
      const letter = yield* ask(() => raw.channel.get("stoker.dead", { noAck: true }))
      if (letter === false) return assert.fail("it is not there")
      const headers = letter.properties.headers ?? {}
      assert.strictEqual(
        headers["x-stoker-reason"],
        "gave up after 3 tries: could not be run by test: no room. none"
      )
      assert.deepInclude(headers, { "x-stoker-attempt": 3, mine: "kept" })
      assert.notProperty(headers, "x-death")
    }).pipe(Effect.scoped))

  it.live("never is never, and an outcome may be named to be tried again", () =>
    Effect.gen(function*() {
      const broker = yield* acquireBroker
      const { arrived } = yield* startIntake(broker)
      yield* served(broker)
      const raw = yield* acquireRaw(broker)
      raw.send(say1("never"), { headers: { "x-stoker-retry-on": "never" } })
      const never = yield* Queue.take(arrived)
      assert.isFalse(yield* never.retry(failed))
      yield* never.ack
      raw.send(say1("exits"), { headers: { "x-stoker-retry-on": "Exited, TimedOut", "x-stoker-retry-backoff": 10 } })
      const exits = yield* Queue.take(arrived)
      assert.isFalse(yield* exits.retry(failed))
      assert.isTrue(yield* exits.retry(Outcome.cases.Exited.make({ phase: "run", code: 1 })))
      yield* exits.ack
      assert.strictEqual((yield* Queue.take(arrived)).attempt, 2)
      assert.strictEqual((yield* ask(() => broker.queue("stoker.dead")))?.ready, 0)
    }).pipe(Effect.scoped))

  it.live("a poisoned message never loops: given back again and again it waits, and in the end it is kept", () =>
    Effect.gen(function*() {
      const broker = yield* acquireBroker
      const { arrived } = yield* startIntake(broker)
      yield* served(broker)
      const raw = yield* acquireRaw(broker)
      raw.send(say1("poison"))
      // Once at once, to whoever is next.
      yield* Effect.flatMap(Queue.take(arrived), ({ giveBack }) => giveBack)
      const second = yield* Queue.take(arrived)
      assert.isTrue(second.redelivered)
      const began = Date.now()
      yield* second.giveBack
      const third = yield* Queue.take(arrived)
      assert.isAtLeast(Date.now() - began, 1000)
      assert.isFalse(third.redelivered)
      yield* third.ack
      raw.send(say1("poison"), { headers: { "x-stoker-returns": 50 } })
      yield* Effect.flatMap(Queue.take(arrived), ({ giveBack }) => giveBack)
      yield* queueIs(broker, "stoker.dead", 1)
      yield* queueIs(broker, "stoker.jobs", 0)
    }).pipe(Effect.scoped))

  it.live("one that ends every worker goes to the dead letters by the broker's own limit", () =>
    Effect.gen(function*() {
      const broker = yield* acquireBroker
      const amqp = yield* amqpOf(broker)
      yield* amqp.ensure(jobsTopology("stoker.jobs"))
      const raw = yield* acquireRaw(broker)
      raw.send(say1("killer"))
      for (let n = 0; n < 101; n++) {
        const message = yield* ask(() =>
          Broker.until(() => raw.channel.get("stoker.jobs"), (message) => message !== false)
        )
        if (message !== false) raw.channel.nack(message, false, true)
      }
      yield* queueIs(broker, "stoker.dead", 1)
      yield* queueIs(broker, "stoker.jobs", 0)
    }).pipe(Effect.scoped))

  it.live("connections cut in the middle lose no delayed job and no retry", () =>
    Effect.gen(function*() {
      const broker = yield* acquireBroker
      const { arrived } = yield* startIntake(broker)
      yield* served(broker)
      const raw = yield* acquireRaw(broker)
      for (let n = 0; n < 20; n++) raw.send(say1(`d${n}`), { headers: { "x-stoker-delay": 3000 } })
      yield* ask(() => Broker.until(() => broker.queue("stoker.wait.1000"), (queue) => (queue?.ready ?? 0) > 0))
      yield* ask(() => broker.cutAllConnections())
      const came = new Set<string>()
      while (came.size < 20) {
        const delivery = yield* Queue.take(arrived)
        came.add(delivery.job.id)
        yield* delivery.ack
      }
    }).pipe(Effect.scoped))
})
