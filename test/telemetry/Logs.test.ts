/** The log lines of a worker: their form is kept, they say which job and trace they belong to, and never a secret. */
import { afterAll, assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Logger, Redacted, References, Schema } from "effect"
import { json } from "../../src/cli/Loggers.ts"
import { Stoker } from "../cli/Stoker.ts"
import { commandJob, start } from "./Work.ts"

const Line = Schema.Struct({
  timestamp: Schema.String.check(Schema.isPattern(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)),
  level: Schema.Literals(["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"]),
  message: Schema.String,
  job: Schema.optionalKey(Schema.String),
  attempt: Schema.optionalKey(Schema.Number),
  instance: Schema.optionalKey(Schema.String),
  trace_id: Schema.optionalKey(Schema.String),
  span_id: Schema.optionalKey(Schema.String),
  cause: Schema.optionalKey(Schema.String),
  annotations: Schema.Record(Schema.String, Schema.Json)
})
const decode = Schema.decodeUnknownSync(Schema.fromJsonString(Line), { onExcessProperty: "error" })

/** Lines as they would be written. */
const listening = () => {
  const lines: Array<string> = []
  return { lines, logger: Logger.map(json, (line) => void lines.push(line)) }
}

const stoker = new Stoker()
afterAll(() => stoker.dispose())

describe("a JSON line", () => {
  it.effect("has the form that is documented, whatever is logged", () =>
    Effect.gen(function*() {
      const { lines, logger } = listening()
      yield* Effect.gen(function*() {
        yield* Effect.logInfo("text")
        yield* Effect.logWarning("one", { a: 1 }, ["b"]).pipe(
          Effect.annotateLogs({ slots: 3, secret: Redacted.make("s3cret") })
        )
        yield* Effect.logError("it broke", Cause.fail(new Error("why")))
        yield* Effect.logDebug(undefined)
      }).pipe(
        Effect.annotateLogs({ job: "a/b/c", attempt: 2, instance: "i" }),
        Effect.provide(Logger.layer([logger])),
        Effect.provideService(References.MinimumLogLevel, "All")
      )
      const [first, second, third] = lines.map((line) => decode(line))
      assert.strictEqual(lines.length, 4)
      assert.deepInclude(first, {
        level: "INFO",
        message: "text",
        job: "a/b/c",
        attempt: 2,
        instance: "i",
        annotations: {}
      })
      assert.deepInclude(second, {
        level: "WARN",
        message: "one {\"a\":1} b",
        annotations: { slots: 3, secret: "<redacted>" }
      })
      assert.match(third?.cause ?? "", /why/)
      assert.isTrue(lines.every((line) => !line.includes("\n")))
    }))

  it.live("of a job says which job, attempt, worker and trace", () =>
    Effect.gen(function*() {
      const { lines, logger } = listening()
      const worker = yield* start({ driver: "process", logger })
      const traceId = "0af7651916cd43dd8448eb211c80319c"
      yield* worker.run(commandJob("a", ["true"], { traceparent: `00-${traceId}-b7ad6b7169203331-01` }))
      yield* worker.run(commandJob("b", ["true"]))
      const ended = lines.map((line) => decode(line)).filter(({ message }) => message === "job succeeded")
      assert.deepStrictEqual(
        ended.map(({ attempt, job, span_id, trace_id }) => ({ attempt, job, span_id, trace_id })),
        [
          { attempt: 1, job: "direct/tester/a", trace_id: traceId, span_id: "b7ad6b7169203331" },
          { attempt: 1, job: "direct/tester/b", trace_id: undefined, span_id: undefined }
        ]
      )
      assert.isTrue(ended.every(({ instance }) => instance !== undefined))
    }))
})

describe("stoker worker", () => {
  it("never says the broker's password or the collector's headers, whatever goes wrong and however much it says", async () => {
    const worker = stoker.start(["worker", "--driver", "process", "--log-level", "all"], {
      env: {
        AMQP_URL: "amqp://user:pa55w0rd@127.0.0.1:9/vhost",
        OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:9",
        OTEL_EXPORTER_OTLP_HEADERS: "authorization=Bearer%20t0ken"
      }
    })
    await worker.said("stderr", "telemetry cannot be sent")
    await worker.said("stderr", "127.0.0.1:9 (Connect)")
    worker.kill("SIGTERM")
    const { code, stderr, stdout } = await worker.ended
    assert.strictEqual(code, 0)
    for (const line of stderr.trim().split("\n").filter((text) => text.startsWith("{"))) decode(line)
    assert.notInclude(stdout + stderr, "pa55w0rd")
    assert.notInclude(stdout + stderr, "t0ken")
  })

  it("ends at once and says why when a variable cannot be", async () => {
    const { code, stderr } = await stoker.run(["worker"], { env: { OTEL_EXPORTER_OTLP_ENDPOINT: "nowhere" } })
    assert.match(stderr, /OTEL_EXPORTER_OTLP_ENDPOINT.*http:\/\/host:4318/)
    assert.notStrictEqual(code, 0)
  })
})
