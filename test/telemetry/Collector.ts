/** Stands in for an OpenTelemetry collector: takes OTLP as JSON over HTTP and keeps what it was sent. */
import { Effect, Schema } from "effect"
import { createServer, type IncomingMessage } from "node:http"

const Value = Schema.Struct({
  stringValue: Schema.optionalKey(Schema.String),
  intValue: Schema.optionalKey(Schema.Union([Schema.String, Schema.Number])),
  doubleValue: Schema.optionalKey(Schema.Number),
  boolValue: Schema.optionalKey(Schema.Boolean)
})
const Attributes = Schema.Array(Schema.Struct({ key: Schema.String, value: Value }))
const Resource = Schema.Struct({ attributes: Attributes })

const Span = Schema.Struct({
  traceId: Schema.String.check(Schema.isPattern(/^[0-9a-f]{32}$/)),
  spanId: Schema.String.check(Schema.isPattern(/^[0-9a-f]{16}$/)),
  parentSpanId: Schema.optionalKey(Schema.String),
  name: Schema.String,
  kind: Schema.Number,
  startTimeUnixNano: Schema.BigIntFromString,
  endTimeUnixNano: Schema.BigIntFromString,
  attributes: Attributes,
  status: Schema.Struct({ code: Schema.Number, message: Schema.optionalKey(Schema.String) })
})
export type Span = typeof Span.Type

const LogRecord = Schema.Struct({
  body: Value,
  severityText: Schema.String,
  attributes: Attributes,
  traceId: Schema.optionalKey(Schema.String),
  spanId: Schema.optionalKey(Schema.String)
})
export type LogRecord = typeof LogRecord.Type

const Points = Schema.Struct({
  dataPoints: Schema.Array(Schema.Struct({
    attributes: Attributes,
    asDouble: Schema.optionalKey(Schema.Number),
    count: Schema.optionalKey(Schema.Number)
  }))
})
const MetricData = Schema.Struct({
  name: Schema.String,
  sum: Schema.optionalKey(Points),
  gauge: Schema.optionalKey(Points),
  histogram: Schema.optionalKey(Points)
})
export type MetricData = typeof MetricData.Type

const decodeTraces = Schema.decodeUnknownSync(Schema.fromJsonString(Schema.Struct({
  resourceSpans: Schema.Array(
    Schema.Struct({ resource: Resource, scopeSpans: Schema.Array(Schema.Struct({ spans: Schema.Array(Span) })) })
  )
})))
const decodeLogs = Schema.decodeUnknownSync(Schema.fromJsonString(Schema.Struct({
  resourceLogs: Schema.Array(
    Schema.Struct({
      resource: Resource,
      scopeLogs: Schema.Array(Schema.Struct({ logRecords: Schema.Array(LogRecord) }))
    })
  )
})))
const decodeMetrics = Schema.decodeUnknownSync(Schema.fromJsonString(Schema.Struct({
  resourceMetrics: Schema.Array(Schema.Struct({
    resource: Resource,
    scopeMetrics: Schema.Array(Schema.Struct({ metrics: Schema.Array(MetricData) }))
  }))
})))

export interface Collector {
  /** http://127.0.0.1:port */
  readonly url: string
  readonly spans: Array<Span>
  readonly logs: Array<LogRecord>
  /** As last sent. */
  metrics: ReadonlyArray<MetricData>
  readonly resources: Array<Readonly<Record<string, unknown>>>
  readonly headers: Array<IncomingMessage["headers"]>
  /** All bodies as they came. */
  readonly raw: Array<string>
}

export const valuesOf = (attributes: typeof Attributes.Type): Readonly<Record<string, unknown>> =>
  Object.fromEntries(
    attributes.map(({ key, value: { boolValue, doubleValue, intValue, stringValue } }) => [
      key,
      stringValue ?? intValue ?? doubleValue ?? boolValue
    ])
  )

/** `answer` is the status it gives, or never for one that hangs. */
export const acquire = (answer: number | "never" = 200) => {
  const collector: Omit<Collector, "url"> = { spans: [], logs: [], metrics: [], resources: [], headers: [], raw: [] }
  const take = (path: string | undefined, body: string) => {
    collector.raw.push(body)
    switch (path) {
      case "/v1/traces":
        for (const { resource, scopeSpans } of decodeTraces(body).resourceSpans) {
          collector.resources.push(valuesOf(resource.attributes))
          for (const { spans } of scopeSpans) collector.spans.push(...spans)
        }
        return
      case "/v1/logs":
        for (const { scopeLogs } of decodeLogs(body).resourceLogs) {
          for (const { logRecords } of scopeLogs) collector.logs.push(...logRecords)
        }
        return
      case "/v1/metrics":
        collector.metrics = decodeMetrics(body).resourceMetrics.flatMap(({ scopeMetrics }) =>
          scopeMetrics.flatMap(({ metrics }) => metrics)
        )
        return
      default:
        throw new Error(`nobody sends to ${path}`)
    }
  }
  const server = createServer((request, response) => {
    const chunks: Array<Buffer> = []
    request.on("data", (chunk: Buffer) => chunks.push(chunk))
    request.on("end", () => {
      collector.headers.push(request.headers)
      if (answer === "never") return
      const body = Buffer.concat(chunks)
      // Protobuf is kept as it came: its texts can be found in it.
      if (request.headers["content-type"] === "application/json") take(request.url, body.toString())
      else collector.raw.push(body.toString("latin1"))
      response.writeHead(answer).end("{}")
    })
  })
  return Effect.acquireRelease(
    Effect.callback<Collector>((resume) => {
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        const port = typeof address === "object" && address !== null ? address.port : 0
        resume(Effect.succeed(Object.assign(collector, { url: `http://127.0.0.1:${port}` })))
      })
    }),
    () =>
      Effect.callback<void>((resume) => {
        server.closeAllConnections()
        server.close(() => resume(Effect.void))
      })
  )
}
