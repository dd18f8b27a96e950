import { assert, beforeAll, describe, it } from "@effect/vitest"
import { Effect, Metric, Stream } from "effect"
import { artefactPieces } from "../../src/layers/artefacts/Artefacts.ts"
import * as StokerEmitter from "../../src/layers/emitter/Stoker.ts"
import type { RunEvent } from "../../src/layers/executor/Executor.ts"
import { finished, type Script } from "../../src/layers/executor/ExecutorTest.ts"
import { FunctionName, JobId } from "../../src/schemas/Ids.ts"
import { Outcome } from "../../src/schemas/Outcome.ts"
import { Broker } from "../support/Broker.ts"
import { acquireBroker, acquireRaw, ask, queueIs, say1, served, startClient, startWorker } from "./Place.ts"

beforeAll(async () => {
  await using broker = await Broker.acquire()
  assert.include(broker.url, broker.vhost)
}, Broker.startMillis)

/** Prints a line, and three bytes that are no text to stderr, and ends with 0. */
const hello: Script = () =>
  Stream.make(
    { _tag: "Ready" as const, place: "/fake", provisionMicros: 1 },
    { _tag: "PhaseStarted" as const, phase: "run" as const },
    { _tag: "Output" as const, stream: "stdout" as const, bytes: new TextEncoder().encode("hello\n") },
    { _tag: "Output" as const, stream: "stderr" as const, bytes: new Uint8Array([0xff, 0, 0x80]) },
    { _tag: "PhaseEnded" as const, phase: "run" as const, usage: { phase: "run" as const, wallMicros: 5 } },
    finished(Outcome.cases.Exited.make({ phase: "run", code: 0 }))
  )

const contents: Readonly<Record<string, Uint8Array>> = {
  small: new TextEncoder().encode("four"),
  large: new Uint8Array(600_000).fill(7),
  binary: Uint8Array.from({ length: 1000 }, (_, index) => index & 255)
}

/** Leaves what it is asked for, if it has it. */
const leaving: Script = ({ program }) =>
  Stream.fromIterable<RunEvent>([
    { _tag: "Ready", place: "/fake", provisionMicros: 1 },
    ...program.artefacts.map((path): RunEvent => {
      const content = contents[path]
      return content === undefined
        ? { _tag: "ArtefactMissing", path, reason: "there is no such file" }
        : { _tag: "Artefact", path, content }
    }),
    finished(Outcome.cases.Exited.make({ phase: "run", code: 0 }))
  ])

const words = (events: ReadonlyArray<Record<string, unknown>>) => events.map(({ event }) => event)
const life = ["received", "running", "phase-started", "phase-ended", "ended"]
const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

describe("Stoker's own dialect, from message to reply", { timeout: 60_000 }, () => {
  it.live("client first: its job waits, and every event comes to reply-to with its correlation id and trace", () =>
    Effect.gen(function*() {
      const broker = yield* acquireBroker
      const client = yield* startClient(broker)
      const raw = yield* acquireRaw(broker)
      // Declares the queue as a worker would.
      yield* client.submit({ id: JobId.make("early"), function: FunctionName.make("say"), args: { word: "x" } })
      yield* queueIs(broker, "stoker.jobs", 1)
      const waiting = yield* ask(() => raw.channel.get("stoker.jobs"))
      if (waiting === false) return assert.fail("it is not there")
      assert.match(waiting.properties.headers?.["traceparent"], /^00-[0-9a-f]{32}-[0-9a-f]{16}-01$/)
      raw.channel.nack(waiting, false, true)
      const replyTo = yield* ask(() => raw.listen())
      raw.send({ ...say1("j1"), labels: { team: "blue" } }, {
        replyTo,
        correlationId: "c-1",
        headers: { traceparent }
      })
      yield* startWorker(broker, { instance: "w1", script: hello })
      const heard = yield* ask(() => raw.until(5))
      const events = raw.events()
      assert.deepStrictEqual(words(events), life)
      assert.deepStrictEqual(new Set(heard.map(({ properties }) => properties.correlationId)), new Set(["c-1"]))
      assert.strictEqual(heard[0]?.properties.headers?.["traceparent"], traceparent)
      assert.strictEqual(heard[0]?.properties.contentType, "application/json")
      assert.strictEqual(heard[4]?.properties.type, "ended")
      assert.strictEqual(new Set(heard.map(({ properties }) => properties.messageId)).size, 5)
      const last = events[4] ?? {}
      assert.deepInclude(last, {
        id: "j1",
        owner: "stoker",
        attempt: 1,
        labels: { team: "blue" },
        outcome: { _tag: "Exited", phase: "run", code: 0 }
      })
      const [stdout, stderr] = last["output"] as ReadonlyArray<Record<string, unknown>>
      assert.deepInclude(stdout, { stream: "stdout", producedBytes: 6, encoding: "utf-8", content: "hello\n" })
      assert.deepInclude(stderr, {
        stream: "stderr",
        producedBytes: 3,
        encoding: "base64",
        content: "/wCA",
        leftOut: []
      })
      yield* queueIs(broker, "stoker.jobs", 0)
    }))

  it.live("the files it left come with its last event as far as that has room, and in pieces for whoever asks", () =>
    Effect.gen(function*() {
      const broker = yield* acquireBroker
      yield* startWorker(broker, { instance: "w1", script: leaving })
      yield* startWorker(broker, { instance: "w2", script: leaving })
      yield* served(broker)
      const client = yield* startClient(broker)
      const names = ["small", "large", "binary", "absent"]
      const id = JobId.make("files")
      const events = yield* client.follow({
        id,
        function: FunctionName.make("say"),
        args: { word: "x", artefacts: names }
      })
      const last = (yield* Stream.runCollect(events)).at(-1)
      if (last?.event !== "ended") return assert.fail("it has no end")
      assert.deepStrictEqual(last.artefactsMissing, [{ path: "absent", reason: "there is no such file" }])
      const told = (last.artefacts ?? []).map(({ bytes, content, path }) =>
        `${path} ${bytes} ${content === undefined ? "to be asked for" : Buffer.from(content, "base64").length}`
      )
      // Together no more than both streams of output may have: 512 KiB, as base64.
      assert.deepStrictEqual(told, ["small 4 4", "large 600000 to be asked for", "binary 1000 1000"])
      assert.isBelow(JSON.stringify(last).length, 600_000)

      const asker = yield* startClient(broker)
      for (const artefact of last.artefacts ?? []) {
        const { content: _, ...named } = artefact
        const first = yield* asker.artefact({ id }, artefact.path, { offset: 0, maxBytes: 3 })
        assert.deepStrictEqual(first.artefact, named)
        assert.strictEqual(first.bytes.length, 3)
        const parts = yield* Stream.runCollect(artefactPieces((range) => asker.artefact({ id }, artefact.path, range)))
        assert.deepStrictEqual(Buffer.concat(parts), Buffer.from(contents[artefact.path] ?? ""))
      }
      const { settlement } = yield* asker.status({ id })
      assert.deepStrictEqual(settlement?.artefacts?.map(({ path }) => path), ["small", "large", "binary"])
      const absent = yield* Effect.flip(asker.artefact({ id }, "absent", { offset: 0, maxBytes: 1 }))
      assert.strictEqual(absent._tag, "ArtefactNotFound")
    }).pipe(Effect.scoped))

  it.live("worker first: our client follows its job to the end", () =>
    Effect.gen(function*() {
      const broker = yield* acquireBroker
      yield* startWorker(broker, { instance: "w1", script: hello })
      yield* served(broker)
      const client = yield* startClient(broker)
      const events = yield* client.follow({
        id: JobId.make("j1"),
        function: FunctionName.make("say"),
        args: { word: "x" },
        priority: "high"
      })
      assert.deepStrictEqual(words(yield* Stream.runCollect(events)), life)
      yield* queueIs(broker, "stoker.jobs.high", 0)
    }).pipe(Effect.scoped))

  it.live("the same request twice is one run, and its end is told to both", () =>
    Effect.gen(function*() {
      const broker = yield* acquireBroker
      yield* startWorker(broker, { instance: "w1", script: hello })
      yield* served(broker)
      const raw = yield* acquireRaw(broker)
      const replyTo = yield* ask(() => raw.listen())
      raw.send(say1("same"), { replyTo, correlationId: "1" })
      yield* ask(() => raw.until(5))
      raw.send({ function: "say", args: { word: "hello" } }, {
        replyTo,
        correlationId: "2",
        messageId: "another",
        headers: { "x-stoker-idempotency-key": "same" }
      })
      yield* ask(() => raw.until(7))
      assert.deepStrictEqual(words(raw.events()).slice(5), ["received", "ended"])
      assert.deepInclude(raw.events()[6], { attempt: 1, id: "same" })
      assert.strictEqual(raw.heard[6]?.properties.correlationId, "2")
    }))

  it.live("events of all jobs come over the topic exchange, by owner, id and kind", () =>
    Effect.gen(function*() {
      const broker = yield* acquireBroker
      yield* startWorker(broker, { instance: "w1", script: hello })
      yield* served(broker)
      const raw = yield* acquireRaw(broker)
      yield* ask(() => raw.listen("*.*.ended"))
      const others = yield* acquireRaw(broker)
      yield* ask(() => others.listen("guest.#"))
      raw.send(say1("a.b-c"))
      raw.send(say1("mine"), { userId: "guest" })
      yield* ask(() => raw.until(2))
      assert.sameMembers(raw.heard.map(({ fields }) => fields.routingKey), ["stoker.a_b-c.ended", "guest.mine.ended"])
      yield* ask(() => others.until(5))
      assert.deepStrictEqual(words(others.events()), life)
      const exchange = yield* ask(() => broker.exchange("stoker.events"))
      assert.deepInclude(exchange, { type: "topic", durable: true })
    }))

  it.live("a reply queue that is gone is counted, and the job ends as ever, once", () =>
    Effect.gen(function*() {
      const broker = yield* acquireBroker
      let runs = 0
      const counting: Script = (assignment, stop) => {
        runs += 1
        return hello(assignment, stop)
      }
      yield* startWorker(broker, { instance: "w1", script: counting })
      yield* served(broker)
      const raw = yield* acquireRaw(broker)
      yield* ask(() => raw.listen("#"))
      const before = (yield* Metric.value(StokerEmitter.counters.unroutable)).count
      raw.send(say1("j1"), { replyTo: "nobody-listens-here" })
      yield* ask(() => raw.until(5))
      yield* queueIs(broker, "stoker.jobs", 0)
      assert.strictEqual((yield* Metric.value(StokerEmitter.counters.unroutable)).count - before, 5)
      assert.strictEqual(runs, 1)
      assert.isUndefined(yield* ask(() => broker.queue("nobody-listens-here")))
    }))

  it.live("what is no job is kept with its reason, and its sender is told", () =>
    Effect.gen(function*() {
      const broker = yield* acquireBroker
      yield* startWorker(broker, { instance: "w1", script: hello })
      yield* served(broker)
      const raw = yield* acquireRaw(broker)
      const replyTo = yield* ask(() => raw.listen())
      raw.send(Buffer.from("nonsense"), { replyTo, correlationId: "1" })
      raw.send({ ...say1("j1"), limts: {} }, { replyTo, correlationId: "2" })
      raw.send(say1("j2"), { replyTo: "stoker.jobs", correlationId: "3" })
      yield* ask(() => raw.until(2))
      yield* queueIs(broker, "stoker.dead", 3)
      const outcomes = new Map(raw.heard.map(({ content, properties }) => [
        properties.correlationId,
        (JSON.parse(content.toString()) as { readonly outcome: { readonly reason: string } }).outcome.reason
      ]))
      assert.strictEqual(outcomes.get("1"), "it is not JSON in UTF-8")
      assert.include(outcomes.get("2"), "limts")
      yield* queueIs(broker, "stoker.jobs", 0)
    }))

  it.live("queues that an operator declared otherwise are used as they are", () =>
    Effect.gen(function*() {
      const broker = yield* acquireBroker
      const raw = yield* acquireRaw(broker)
      yield* ask(() => raw.channel.assertQueue("stoker.jobs", { durable: true }))
      yield* ask(() => raw.channel.assertQueue("stoker.dead", { durable: true, maxLength: 500 }))
      yield* ask(() =>
        raw.channel.assertExchange("stoker.events", "topic", {
          durable: true,
          internal: false,
          arguments: { "alternate-exchange": "amq.fanout" }
        })
      )
      const replyTo = yield* ask(() => raw.listen())
      yield* ask(() => raw.channel.bindQueue(replyTo, "stoker.events", "#.ended"))
      yield* startWorker(broker, { instance: "w1", script: hello })
      const client = yield* startClient(broker)
      yield* client.submit({ id: JobId.make("j1"), function: FunctionName.make("say"), args: { word: "x" } })
      raw.send(Buffer.from("x"), { replyTo })
      yield* ask(() => raw.until(2))
      yield* queueIs(broker, "stoker.dead", 1)
      assert.deepInclude(yield* ask(() => broker.queue("stoker.jobs")), { type: "classic", arguments: {} })
    }))
})
