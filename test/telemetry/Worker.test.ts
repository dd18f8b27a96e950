/** Real workers, asked for their metrics, and what an OpenTelemetry collector hears of them. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Logger, Scope } from "effect"
import { ClassName, FunctionName } from "../../src/schemas/Ids.ts"
import { acquire, type Collector, type Span, valuesOf } from "./Collector.ts"
import { parse, valueOf } from "./Prometheus.ts"
import { isThere, promtool } from "./Promtool.ts"
import { commandJob, families, start } from "./Work.ts"

const traceId = "0af7651916cd43dd8448eb211c80319c"
const parentId = "b7ad6b7169203331"
const traceparent = `00-${traceId}-${parentId}-01`

/** What goes on in a scope that is closed before the rest is looked at. */
const scoped = Effect.fnUntraced(function*<A, E, R>(body: Effect.Effect<A, E, R>) {
  const scope = yield* Scope.make()
  const exit = yield* Effect.exit(Scope.provide(body, scope))
  yield* Scope.close(scope, exit)
  return yield* exit
})

const otlp = ({ url }: Collector, more: Readonly<Record<string, string>> = {}) => ({
  OTEL_EXPORTER_OTLP_ENDPOINT: url,
  OTEL_EXPORTER_OTLP_PROTOCOL: "http/json",
  ...more
})

const one = (spans: ReadonlyArray<Span>, name: string, id: unknown): Span => {
  const found = spans.filter((span) =>
    span.name === name && (id === undefined || valuesOf(span.attributes)["stoker.job.id"] === id)
  )
  const [span] = found
  if (span === undefined || found.length > 1) assert.fail(`${found.length} spans ${name} of ${String(id)}`)
  return span
}

const durationOf = ({ endTimeUnixNano, startTimeUnixNano }: Span) => Number(endTimeUnixNano - startTimeUnixNano) / 1e9

describe("the metrics of a worker", () => {
  it.live("count every job once, with its labels, and names nobody configured as one", () =>
    Effect.gen(function*() {
      const worker = yield* start({ driver: "process" })
      for (const id of ["a", "b", "c"]) yield* worker.run(commandJob(id, ["echo", id]))
      yield* worker.run(commandJob("bad", ["sh", "-c", "exit 3"]))
      yield* worker.run(commandJob("x1", ["true"], { function: FunctionName.make("one-nobody-has") }))
      yield* worker.run(commandJob("x2", ["true"], { function: FunctionName.make("another") }))
      yield* worker.run(commandJob("x3", ["true"], { class: ClassName.make("no-such-class") }))
      // The same again: answered, not run.
      yield* worker.run(commandJob("a", ["echo", "a"]))
      const found = yield* Effect.repeat(families(worker), {
        until: (found) => valueOf(found, "stoker_jobs_in_hand") === 0
      }).pipe(Effect.timeout("5 seconds"))
      const value = (name: string, labels: Readonly<Record<string, string>> = {}) => valueOf(found, name, labels)
      const own = { intake: "direct", function: "command", class: "process" }
      assert.strictEqual(value("stoker_jobs_total", { ...own, outcome: "Exited" }), 4)
      assert.strictEqual(value("stoker_jobs_total", { function: "unknown", outcome: "Rejected" }), 2)
      assert.strictEqual(value("stoker_jobs_total", { class: "unknown", outcome: "Rejected" }), 1)
      assert.strictEqual(value("stoker_jobs_total"), 7)
      assert.strictEqual(value("stoker_jobs_received_total", { intake: "direct" }), 8)
      assert.strictEqual(value("stoker_deliveries_total", { intake: "direct", end: "acked" }), 8)
      assert.strictEqual(value("stoker_job_seconds_count", { intake: "direct" }), 7)
      assert.strictEqual(value("stoker_job_queue_seconds_count"), 7)
      assert.strictEqual(value("stoker_job_provision_seconds_count", { class: "process" }), 4)
      assert.strictEqual(value("stoker_job_phase_seconds_count", { function: "command", phase: "run" }), 4)
      assert.strictEqual(value("stoker_log_bytes_total", { stream: "stdout" }), 6)
      for (const gauge of ["stoker_jobs_in_hand", "stoker_jobs_running", "stoker_jobs_waiting"]) {
        assert.isTrue(found.has(gauge), gauge)
        assert.strictEqual(value(gauge), 0, gauge)
      }
      assert.strictEqual(value("stoker_slots"), 2)
      assert.strictEqual(value("stoker_pool_takes_total", { class: "process" }), 4)
      assert.isAtLeast(value("stoker_pool_takes_total", { class: "process", result: "hit" }), 1)
      assert.isAtLeast(value("stoker_pool_last_provision_seconds", { class: "process" }), 0.0001)
      assert.strictEqual(value("stoker_journal_operation_seconds_count", { operation: "settle" }), 7)
      assert.strictEqual(value("stoker_journal_errors_total"), 0)
      assert.isAtLeast(value("stoker_journal_batches_total"), 8)
      assert.isAtLeast(value("stoker_process_resident_memory_bytes"), 1e7)
      assert.isAtLeast(value("stoker_janitor_sweeps_total"), 1)
      assert.isFalse(found.has("stoker_broker_connected"), "no broker, no series")
    }))

  it.live("show what runs and waits while it does", () =>
    Effect.gen(function*() {
      const worker = yield* start({ driver: "process", slots: 1 })
      const jobs = yield* Effect.forkChild(
        Effect.forEach(["a", "b"], (id) => worker.run(commandJob(id, ["sleep", "1"])), { concurrency: 2 })
      )
      yield* Effect.repeat(Effect.andThen(Effect.sleep("20 millis"), families(worker)), {
        until: (found) => valueOf(found, "stoker_jobs_running") === 1 && valueOf(found, "stoker_jobs_waiting") === 1
      }).pipe(Effect.timeout("10 seconds"))
      jobs.interruptUnsafe()
    }))
})

describe("telemetry over OTLP", () => {
  it.live("a job is one trace from its sender on: every step below it, with times that add up", () =>
    Effect.gen(function*() {
      const collector = yield* acquire()
      yield* scoped(Effect.gen(function*() {
        const worker = yield* start({
          driver: "process",
          environment: otlp(collector, {
            OTEL_SERVICE_NAME: "build-farm",
            OTEL_RESOURCE_ATTRIBUTES: "deployment.environment=test%20bench",
            OTEL_EXPORTER_OTLP_HEADERS: "authorization=Bearer%20abc"
          })
        })
        yield* worker.run(commandJob("sent", ["sleep", "0.3"], { traceparent }))
        yield* worker.run(commandJob("own", ["true"]))
      }))
      const { spans } = collector
      const job = one(spans, "stoker.job", "sent")
      assert.strictEqual(job.traceId, traceId)
      assert.strictEqual(job.parentSpanId, parentId)
      assert.deepInclude(valuesOf(job.attributes), {
        "stoker.job.id": "sent",
        "stoker.job.owner": "tester",
        "stoker.job.intake": "direct",
        "stoker.job.function": "command",
        "stoker.job.class": "process",
        "stoker.job.attempt": 1,
        "stoker.job.outcome": "Exited"
      })
      const below = spans.filter(({ parentSpanId }) => parentSpanId === job.spanId)
      const step = (name: string) => one(below, name, undefined)
      const order = [
        "stoker.queue",
        "stoker.claim",
        "stoker.provision",
        "stoker.phase.run",
        "stoker.log.end",
        "stoker.settle",
        "stoker.tell"
      ].map(step)
      for (const [index, span] of order.entries()) {
        assert.strictEqual(span.traceId, traceId)
        assert.isTrue(span.startTimeUnixNano >= job.startTimeUnixNano, `${span.name} begins before its job`)
        assert.isTrue(span.endTimeUnixNano <= job.endTimeUnixNano, `${span.name} ends after its job`)
        const next = order[index + 1]
        // Times of a phase are measured by the sandbox: they may be a moment off.
        if (next !== undefined) assert.isAtLeast(Number(next.startTimeUnixNano - span.endTimeUnixNano), -5e6, span.name)
      }
      assert.closeTo(durationOf(step("stoker.phase.run")), 0.3, 0.15)
      assert.isAtMost(order.reduce((sum, span) => sum + durationOf(span), 0), durationOf(job) + 0.005)
      const claim = step("stoker.claim")
      assert.isTrue(spans.some(({ name, parentSpanId }) => name === "Journal.claim" && parentSpanId === claim.spanId))

      const own = one(spans, "stoker.job", "own")
      assert.isUndefined(own.parentSpanId)
      assert.notStrictEqual(own.traceId, traceId)
      const roots = new Set(spans.filter(({ parentSpanId }) => parentSpanId === undefined).map(({ name }) => name))
      assert.deepStrictEqual([...roots], ["stoker.job"], "only jobs begin traces")
      assert.deepInclude(collector.resources[0], {
        "service.name": "build-farm",
        "deployment.environment": "test bench"
      })
      assert.isTrue(collector.headers.every(({ authorization }) => authorization === "Bearer abc"))
    }))

  it.live("metrics and log lines go there too, the lines with the ids of the job's span", () =>
    Effect.gen(function*() {
      const collector = yield* acquire()
      yield* scoped(Effect.gen(function*() {
        const worker = yield* start({ driver: "process", environment: otlp(collector) })
        yield* worker.run(commandJob("sent", ["true"], { traceparent }))
      }))
      const job = one(collector.spans, "stoker.job", "sent")
      const line = collector.logs.find(({ body }) => body.stringValue === "job succeeded")
      const { attempt, instance, job: key, span_id, trace_id } = valuesOf(line?.attributes ?? [])
      assert.deepStrictEqual({ attempt, key, span_id, trace_id }, {
        attempt: 1,
        key: "direct/tester/sent",
        span_id: job.spanId,
        trace_id: traceId
      })
      assert.strictEqual(instance, collector.resources[0]?.["service.instance.id"])
      assert.strictEqual(line?.traceId, traceId)
      const jobs = collector.metrics.find(({ name }) => name === "stoker_jobs_total")
      const ended = jobs?.sum?.dataPoints.filter(({ attributes }) => valuesOf(attributes)["outcome"] === "Exited")
      assert.deepStrictEqual(ended?.map(({ asDouble }) => asDouble), [1])
      assert.isDefined(collector.metrics.find(({ name }) => name === "stoker_job_seconds")?.histogram)
    }))

  it.live("goes as protobuf, which every collector takes, unless JSON is asked for", () =>
    Effect.gen(function*() {
      const collector = yield* acquire()
      yield* scoped(Effect.gen(function*() {
        const worker = yield* start({
          driver: "process",
          environment: { OTEL_EXPORTER_OTLP_ENDPOINT: collector.url }
        })
        yield* worker.run(commandJob("sent", ["true"]))
      }))
      assert.isTrue(collector.headers.every((headers) => headers["content-type"] === "application/x-protobuf"))
      const all = collector.raw.join("")
      for (const text of ["stoker.phase.run", "job succeeded", "stoker_jobs_total"]) assert.include(all, text)
    }))

  it.live("a sender that does not sample is heeded, and a ratio keeps that share of the others", () =>
    Effect.gen(function*() {
      const collector = yield* acquire()
      yield* scoped(Effect.gen(function*() {
        const worker = yield* start({
          driver: "process",
          environment: otlp(collector, {
            OTEL_TRACES_SAMPLER: "parentbased_traceidratio",
            OTEL_TRACES_SAMPLER_ARG: "0"
          })
        })
        yield* worker.run(commandJob("no", ["true"], { traceparent: `00-${traceId}-${parentId}-00` }))
        yield* worker.run(commandJob("none", ["true"]))
        yield* worker.run(commandJob("yes", ["true"], { traceparent }))
      }))
      const jobs = collector.spans.filter(({ name }) => name === "stoker.job")
      assert.deepStrictEqual(jobs.map(({ attributes }) => valuesOf(attributes)["stoker.job.id"]), ["yes"])
    }))

  for (const [how, answer] of [["away", undefined], ["hanging", "never"], ["refusing", 503]] as const) {
    it.live(
      `an endpoint that is ${how} does not slow jobs, is said once, and lets the worker end soon`,
      () =>
        Effect.gen(function*() {
          const url = answer === undefined ? "http://127.0.0.1:9" : (yield* acquire(answer)).url
          const said: Array<string> = []
          const logger = Logger.make(({ message }) => void said.push(String(message)))
          const scope = yield* Scope.make()
          const worker = yield* start({
            driver: "process",
            logger,
            environment: {
              OTEL_EXPORTER_OTLP_ENDPOINT: url,
              OTEL_EXPORTER_OTLP_PROTOCOL: "http/json",
              OTEL_METRIC_EXPORT_INTERVAL: "200"
            }
          }).pipe(Scope.provide(scope))
          const [took] = yield* Effect.timed(
            Effect.forEach(["a", "b", "c"], (id) => worker.run(commandJob(id, ["true"])), { discard: true })
          )
          // A request that hangs is given up after five.
          yield* Effect.sleep(answer === "never" ? "6 seconds" : "2 seconds")
          const [ending] = yield* Effect.timed(Scope.close(scope, Exit.void))
          assert.isBelow(Duration.toMillis(took), 2000)
          assert.isBelow(Duration.toMillis(ending), 4000)
          assert.strictEqual(said.filter((text) => text.includes("cannot be sent")).length, 1, said.join("\n"))
        }),
      30_000
    )
  }
})

describe("real sandboxes", () => {
  it.live("have the same metrics, and the text a scraper is given is right", () =>
    Effect.gen(function*() {
      const worker = yield* start({ driver: "oci" })
      yield* worker.run(commandJob("a", ["echo", "hi"], { traceparent }))
      const text = yield* worker.scrape
      const found = parse(text)
      assert.strictEqual(valueOf(found, "stoker_jobs_total", { class: "oci", outcome: "Exited" }), 1)
      assert.strictEqual(valueOf(found, "stoker_job_phase_seconds_count", { phase: "run" }), 1)
      assert.isAbove(valueOf(found, "stoker_job_provision_seconds_sum", { class: "oci" }), 0)
      assert.isAtLeast(valueOf(found, "stoker_pool_sandboxes", { class: "oci", state: "idle" }), 0)
      if (!isThere) return yield* Effect.logWarning("no promtool here: only the test's own parser has checked the text")
      const checked = promtool(["check", "metrics"], text)
      assert.strictEqual(checked.code, 0, checked.said)
    }))
})
