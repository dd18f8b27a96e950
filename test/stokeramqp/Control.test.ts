import { assert, beforeAll, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Stream } from "effect"
import { finished, type Script } from "../../src/layers/executor/ExecutorTest.ts"
import { controlQueue } from "../../src/layers/intake/StokerTopology.ts"
import { FunctionName, JobId, Owner } from "../../src/schemas/Ids.ts"
import { Outcome } from "../../src/schemas/Outcome.ts"
import { Broker } from "../support/Broker.ts"
import {
  acquireBroker,
  acquireRaw,
  acquireUser,
  ask,
  queueIs,
  say1,
  served,
  startClient,
  startWorker
} from "./Place.ts"

beforeAll(async () => {
  await using broker = await Broker.acquire()
  assert.include(broker.url, broker.vhost)
}, Broker.startMillis)

/** Says hello and goes on until it is stopped. */
const endless: Script = (_assignment, stop) =>
  Stream.concat(
    Stream.make(
      { _tag: "Ready" as const, place: "/fake", provisionMicros: 1 },
      { _tag: "PhaseStarted" as const, phase: "run" as const },
      { _tag: "Output" as const, stream: "stdout" as const, bytes: new TextEncoder().encode("hello\n") }
    ),
    Stream.fromEffect(Effect.map(
      Deferred.await(stop),
      ({ reason }) => finished(Outcome.cases.Stopped.make({ reason }))
    ))
  )

const job = (id: string) => ({ id: JobId.make(id), function: FunctionName.make("say"), args: { word: "x" } })
const named = (id: string) => ({ id: JobId.make(id) })

const twoWorkers = Effect.fnUntraced(function*(broker: Broker) {
  for (const instance of ["w1", "w2"]) {
    yield* startWorker(broker, { instance, script: endless })
    yield* served(broker, controlQueue(instance))
  }
  yield* served(broker)
})

describe("questions over the broker", { timeout: 60_000 }, () => {
  it.live("a job is found, read and stopped from another connection, whichever worker has it", () =>
    Effect.gen(function*() {
      const broker = yield* acquireBroker
      yield* twoWorkers(broker)
      const client = yield* startClient(broker)
      const events = yield* client.follow(job("j1"))
      const running = yield* Deferred.make<void>()
      const following = yield* events.pipe(
        Stream.tap(({ event }) => event === "phase-started" ? Deferred.succeed(running, undefined) : Effect.void),
        Stream.runCollect,
        Effect.forkChild
      )
      yield* Deferred.await(running)

      const other = yield* startClient(broker)
      const status = yield* other.status(named("j1"))
      assert.deepInclude(status, { id: "j1", owner: "stoker", state: "running", attempt: 1, function: "say" } as never)
      const all = { stream: "all" as const, maxBytes: 1000 }
      const slice = yield* other.read(named("j1"), { ...all, offset: 0, waitMs: 5000 })
      assert.strictEqual(slice.next, 6)
      const [entry] = slice.entries
      assert.strictEqual(entry?._tag === "Bytes" ? new TextDecoder().decode(entry.bytes) : "", "hello\n")
      assert.isUndefined(slice.end)
      // Waits at the worker for what comes next: the end.
      const last = yield* Effect.forkChild(other.read(named("j1"), { ...all, offset: 6, run: slice.run, waitMs: 9000 }))

      const stopped = yield* client.stop(named("j1"), { reason: "enough", graceMs: 0 })
      assert.strictEqual(stopped.state, "ended")
      assert.deepStrictEqual(stopped.settlement?.outcome, Outcome.cases.Stopped.make({ reason: "enough" }))
      assert.strictEqual((yield* Fiber.join(last)).end?.complete, true)
      assert.strictEqual((yield* Fiber.join(following)).at(-1)?.event, "ended")
      // Stopped again it answers the same.
      assert.deepStrictEqual(yield* other.stop(named("j1"), { reason: "again", graceMs: 0 }), stopped)
      yield* queueIs(broker, "stoker.jobs", 0)
    }).pipe(Effect.scoped))

  it.live("a job that waits for its turn can be stopped before it begins", () =>
    Effect.gen(function*() {
      const broker = yield* acquireBroker
      yield* startWorker(broker, { instance: "w1", script: endless, slots: 1 })
      yield* served(broker, controlQueue("w1"))
      const client = yield* startClient(broker)
      const first = yield* client.follow(job("first"))
      yield* first.pipe(Stream.takeUntil(({ event }) => event === "phase-started"), Stream.runDrain)
      const second = yield* client.follow(job("second"))
      yield* second.pipe(Stream.takeUntil(({ event }) => event === "received"), Stream.runDrain)
      const stopped = yield* client.stop(named("second"), { reason: "changed my mind", graceMs: 0 })
      assert.strictEqual(stopped.settlement?.outcome._tag, "Stopped")
      assert.strictEqual((yield* client.status(named("first"))).state, "running")
      const list = yield* client.list({ limit: 10 })
      assert.sameMembers(list.map(({ id, state }) => `${id} ${state}`), ["first running", "second ended"])
      assert.deepStrictEqual((yield* client.list({ limit: 10, state: "running" })).map(({ id }) => id as string), [
        "first"
      ])
    }).pipe(Effect.scoped))

  it.live("a hundred stops at once are a hundred ends", () =>
    Effect.gen(function*() {
      const broker = yield* acquireBroker
      yield* startWorker(broker, { instance: "w1", script: endless, slots: 50 })
      yield* served(broker, controlQueue("w1"))
      const client = yield* startClient(broker, { answerLimit: "10 seconds" })
      const names = Array.from({ length: 50 }, (_, n) => `j${n}`)
      yield* Effect.forEach(
        names,
        (name) =>
          Effect.scoped(Effect.flatMap(client.follow(job(name)), (events) =>
            Stream.runDrain(Stream.takeUntil(events, ({ event }) =>
              event === "running")))),
        { concurrency: "unbounded" }
      )
      const ends = yield* Effect.forEach(
        [...names, ...names],
        (name) =>
          client.stop(named(name), { reason: "all", graceMs: 0 }),
        { concurrency: "unbounded" }
      )
      assert.isTrue(ends.every(({ settlement }) => settlement?.outcome._tag === "Stopped"))
    }).pipe(Effect.scoped))

  it.live("what nobody knows is not found after the time to answer; without a worker that is said", () =>
    Effect.gen(function*() {
      const broker = yield* acquireBroker
      const client = yield* startClient(broker, { answerLimit: "300 millis" })
      const alone = yield* Effect.flip(client.status(named("j1")))
      assert.deepInclude(alone, { _tag: "StokerClientError", reason: "NoWorker" })
      yield* twoWorkers(broker)
      assert.strictEqual((yield* Effect.flip(client.status(named("j1"))))._tag, "JobNotFound")
      assert.strictEqual(
        (yield* Effect.flip(client.stop(named("j1"), { reason: "x", graceMs: 0 })))._tag,
        "JobNotFound"
      )
      const read = client.read(named("j1"), { stream: "all", offset: 0, maxBytes: 1, waitMs: 0 })
      assert.strictEqual((yield* Effect.flip(read))._tag, "LogNotFound")
    }).pipe(Effect.scoped))

  it.live("a user the broker vouches for finds its own jobs only, and cannot speak for another", () =>
    Effect.gen(function*() {
      const broker = yield* acquireBroker
      const raw = yield* acquireRaw(broker)
      const asAlice = yield* acquireUser(broker, "alice-of-control")
      yield* twoWorkers(broker)
      const replyTo = yield* ask(() => raw.listen())
      raw.send(say1("theirs"), { replyTo })
      yield* ask(() => raw.until(3))
      const alice = yield* startClient(asAlice, { userId: "alice-of-control", answerLimit: "300 millis" })
      const events = yield* alice.follow(job("hers"))
      yield* events.pipe(Stream.takeUntil(({ event }) => event === "phase-started"), Stream.runDrain)
      assert.strictEqual((yield* alice.status(named("hers"))).owner as string, "alice-of-control")
      assert.strictEqual((yield* Effect.flip(alice.status(named("theirs"))))._tag, "JobNotFound")
      const foreign = alice.status({ ...named("theirs"), owner: Owner.make("stoker") })
      assert.strictEqual((yield* Effect.flip(foreign))._tag, "JobNotFound")
      assert.deepStrictEqual((yield* alice.list({ limit: 10 })).map(({ id }) => id as string), ["hers"])
    }).pipe(Effect.scoped))

  it.live("questions that are none are told so, and answers come back after connections were cut", () =>
    Effect.gen(function*() {
      const broker = yield* acquireBroker
      yield* startWorker(broker, { instance: "w1", script: endless })
      yield* served(broker, controlQueue("w1"))
      const client = yield* startClient(broker)
      const events = yield* client.follow(job("j1"))
      yield* events.pipe(Stream.takeUntil(({ event }) => event === "phase-started"), Stream.runDrain)
      assert.strictEqual((yield* client.status(named("j1"))).state, "running")
      yield* ask(() => broker.cutAllConnections())
      yield* ask(() => Broker.until(() => broker.connections(), (all) => all.length >= 4))
      yield* served(broker, controlQueue("w1"))
      assert.strictEqual((yield* Effect.retry(client.status(named("j1")), { times: 5 })).state, "running")

      const raw = yield* acquireRaw(broker)
      const replyTo = yield* ask(() => raw.listen())
      raw.channel.publish("stoker.control", "", Buffer.from(`{"ask":"everything"}`), { replyTo, correlationId: "9" })
      const [answer] = yield* ask(() => raw.until(1))
      assert.strictEqual(answer?.properties.correlationId, "9")
      assert.deepInclude(raw.events()[0], { answer: "trouble", from: "stoker.control.w1" })
    }).pipe(Effect.scoped))
})
