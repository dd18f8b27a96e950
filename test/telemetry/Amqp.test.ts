/** A trace goes through a broker: from the sender's header to the job's span, and on in what is told about the job. */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Effect, Layer, Logger, Metric, Stream, Tracer } from "effect"
import { PrometheusMetrics } from "effect/observability"
import * as Desk from "../../src/actors/Desk.ts"
import * as Dispatcher from "../../src/actors/Dispatcher.ts"
import * as Outbox from "../../src/actors/Outbox.ts"
import { Amqp } from "../../src/layers/amqp/Amqp.ts"
import * as AmqpTest from "../../src/layers/amqp/AmqpTest.ts"
import * as ArtefactsMemory from "../../src/layers/artefacts/ArtefactsMemory.ts"
import * as Settings from "../../src/layers/config/Settings.ts"
import { Emitters } from "../../src/layers/emitter/Emitter.ts"
import * as StokerEmitter from "../../src/layers/emitter/Stoker.ts"
import * as ExecutorTest from "../../src/layers/executor/ExecutorTest.ts"
import * as Functions from "../../src/layers/functions/Functions.ts"
import * as HostTest from "../../src/layers/host/HostTest.ts"
import * as StokerIntake from "../../src/layers/intake/Stoker.ts"
import { jobsTopology } from "../../src/layers/intake/StokerTopology.ts"
import * as JournalMemory from "../../src/layers/journal/JournalMemory.ts"
import * as LedgerMemory from "../../src/layers/ledger/LedgerMemory.ts"
import * as LogMemory from "../../src/layers/log/LogMemory.ts"
import { Outcome } from "../../src/schemas/Outcome.ts"
import { standardConfig } from "../../src/schemas/WorkerConfig.ts"
import { finished, hello, type Script } from "../actors/World.ts"
import { say } from "../support/Say.ts"
import { parse, valueOf } from "./Prometheus.ts"

const traceId = "0af7651916cd43dd8448eb211c80319c"
const parentId = "b7ad6b7169203331"
const bytes = (content: unknown) => new TextEncoder().encode(JSON.stringify(content))

/** A worker without sandboxes at a broker in memory; its spans are kept if anybody wants them. */
const worker = Effect.fnUntraced(function*(tracer?: Tracer.Tracer, script: Script = hello) {
  const emitters = Layer.effect(Emitters, Effect.map(StokerEmitter.make(), (emitter) => [emitter]))
  const layers = Dispatcher.layer.pipe(
    Layer.provideMerge(Layer.mergeAll(Outbox.layer, Desk.layer)),
    Layer.provideMerge(Layer.mergeAll(emitters, Functions.layer([say]), ExecutorTest.layerTest(script))),
    Layer.provideMerge(Layer.mergeAll(
      JournalMemory.layerMemory,
      LogMemory.layerMemory,
      ArtefactsMemory.layerMemory,
      Layer.provideMerge(LedgerMemory.layerMemory, HostTest.layerTest({ instance: "w" })),
      Settings.layer(standardConfig),
      AmqpTest.layerTest
    )),
    Layer.provideMerge(Layer.mergeAll(
      Logger.layer([]),
      Layer.succeed(Metric.MetricRegistry, new Map()),
      tracer === undefined ? Layer.empty : Layer.succeed(Tracer.Tracer, tracer)
    ))
  )
  const context = yield* Layer.build(Layer.fresh(layers))
  yield* Effect.gen(function*() {
    const [emitter] = yield* Emitters
    if (emitter === undefined) return yield* Effect.die("no emitter")
    const dispatcher = yield* Dispatcher.Dispatcher
    const intake = yield* StokerIntake.make({ slots: 2, emitter, user: "guest" })
    yield* Effect.forkScoped(Stream.runForEach(intake.deliveries, dispatcher.deliver))
  }).pipe(Effect.provideContext(context))
  const amqp = Context.get(context, Amqp)
  yield* amqp.ensure({ queues: [{ name: "answers" }] })
  yield* amqp.ensure(jobsTopology("stoker.jobs"))
  return {
    send: (content: unknown, headers: Readonly<Record<string, string>> = {}) =>
      amqp.publish({
        exchange: "",
        routingKey: "stoker.jobs",
        body: bytes(content),
        properties: { replyTo: "answers", headers }
      }),
    /** What was told about jobs, up to so many. */
    heard: (count: number) =>
      amqp.consume("answers", { prefetch: 100 }).pipe(
        Stream.tap(({ ack }) => ack),
        Stream.take(count),
        Stream.runCollect,
        Effect.timeout("10 seconds")
      ),
    metrics: Effect.map(Effect.provideContext(PrometheusMetrics.format(), context), parse)
  }
})

const collecting = () => {
  const spans: Array<Tracer.Span> = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  return { spans, tracer }
}

describe("over a broker", () => {
  it.live("a job's span is a child of its sender's, and what is told about it carries the job's own", () =>
    Effect.gen(function*() {
      const { spans, tracer } = collecting()
      const { heard, send } = yield* worker(tracer)
      yield* send({ id: "a", function: "say", args: { word: "hi" } }, { traceparent: `00-${traceId}-${parentId}-01` })
      const told = yield* heard(5)
      const job = spans.find(({ name }) => name === "stoker.job") ?? assert.fail("no span of the job")
      assert.strictEqual(job.traceId, traceId)
      assert.strictEqual(job.parent._tag === "Some" ? job.parent.value.spanId : "", parentId)
      assert.deepStrictEqual([...new Set(told.map(({ properties }) => properties.headers?.["traceparent"]))], [
        `00-${traceId}-${job.spanId}-01`
      ])
      const provision = spans.find(({ name }) => name === "stoker.provision")?.status
      if (provision?._tag !== "Ended") assert.fail("its sandbox has no span")
      assert.strictEqual(provision.endTime - provision.startTime, 1_000_000n, "as long as the executor says it took")
    }).pipe(Effect.scoped))

  it.live("the span of a job that failed by Stoker's doing is an error, with the reason; a program's own failure is none", () =>
    Effect.gen(function*() {
      const { spans, tracer } = collecting()
      const { send } = yield* worker(tracer, ({ job }) =>
        Stream.make(finished(
          job.id === "ours"
            ? Outcome.cases.SandboxFailed.make({ driver: "oci", reason: "no room", remedy: "none" })
            : Outcome.cases.Exited.make({ phase: "run", code: 3 })
        )))
      yield* send({ id: "ours", function: "say", args: { word: "hi" } })
      yield* send({ id: "its-own", function: "say", args: { word: "hi" } })
      const ended = Effect.sync(() =>
        spans.filter(({ name, status }) => name === "stoker.job" && status._tag === "Ended")
      )
      const jobs = yield* Effect.repeat(ended, { until: (jobs) => jobs.length === 2 }).pipe(Effect.timeout("5 seconds"))
      const exits = new Map(jobs.map(({ attributes, status }) => [
        attributes.get("stoker.job.id"),
        status._tag === "Ended" ? status.exit : undefined
      ]))
      assert.strictEqual(exits.get("its-own")?._tag, "Success")
      const exit = exits.get("ours")
      if (exit?._tag !== "Failure") assert.fail("no error")
      assert.include(String(Cause.squash(exit.cause)), "no room")
    }).pipe(Effect.scoped))

  it.live("where nobody exports, the sender's own header goes on", () =>
    Effect.gen(function*() {
      const { heard, send } = yield* worker()
      const traceparent = `00-${traceId}-${parentId}-01`
      yield* send({ id: "a", function: "say", args: { word: "hi" } }, { traceparent })
      const told = yield* heard(5)
      assert.isTrue(told.every(({ properties }) => properties.headers?.["traceparent"] === traceparent))
    }).pipe(Effect.scoped))

  it.live("a header that is no traceparent begins a trace of its own", () =>
    Effect.gen(function*() {
      const { spans, tracer } = collecting()
      const { heard, send } = yield* worker(tracer)
      yield* send({ id: "a", function: "say", args: { word: "hi" } }, { traceparent: "00-nonsense" })
      const [first] = yield* heard(5)
      const job = spans.find(({ name }) => name === "stoker.job") ?? assert.fail("no span of the job")
      assert.strictEqual(job.parent._tag, "None")
      assert.strictEqual(first?.properties.headers?.["traceparent"], `00-${job.traceId}-${job.spanId}-01`)
    }).pipe(Effect.scoped))

  it.live("messages and dead letters are counted", () =>
    Effect.gen(function*() {
      const { heard, metrics, send } = yield* worker()
      yield* send({ id: "a", function: "say", args: { word: "hi" } })
      yield* heard(5)
      yield* send("nonsense")
      // The last event of what was never a job.
      yield* heard(1)
      const found = yield* Effect.repeat(metrics, {
        until: (found) => valueOf(found, "stoker_messages_confirmed_total", { emitter: "stoker" }) >= 10
      }).pipe(Effect.timeout("5 seconds"))
      const value = (name: string) => valueOf(found, name, { emitter: "stoker" })
      // Five events, each to the exchange, where nobody listens, and to the sender; and the refusal to its sender.
      assert.strictEqual(value("stoker_messages_sent_total"), 11)
      assert.strictEqual(value("stoker_messages_unroutable_total"), 5)
      assert.strictEqual(value("stoker_messages_undeliverable_total"), 0)
      assert.strictEqual(valueOf(found, "stoker_dead_letters_total"), 1)
      assert.strictEqual(valueOf(found, "stoker_jobs_total", { intake: "stoker", outcome: "Exited" }), 1)
    }).pipe(Effect.scoped))
})
