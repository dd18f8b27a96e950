import { assert, describe, it } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { telemetryFrom } from "./Work.ts"

const endpoint = { OTEL_EXPORTER_OTLP_ENDPOINT: "http://collector:4318" }

describe("the OTEL_ variables", () => {
  it.effect("ask for nothing when no endpoint is named, or all of it is disabled", () =>
    Effect.gen(function*() {
      assert.isUndefined(yield* telemetryFrom({}))
      assert.isUndefined(yield* telemetryFrom({ OTEL_EXPORTER_OTLP_ENDPOINT: "", OTEL_TRACES_SAMPLER: "always_on" }))
      assert.isUndefined(yield* telemetryFrom({ ...endpoint, OTEL_SDK_DISABLED: "true" }))
    }))

  it.effect("mean what OpenTelemetry says they mean", () =>
    Effect.gen(function*() {
      const { headers, ...options } = (yield* telemetryFrom({
        OTEL_EXPORTER_OTLP_ENDPOINT: "https://collector:4318/otlp/",
        OTEL_EXPORTER_OTLP_LOGS_ENDPOINT: "http://logs:9999/in",
        OTEL_METRICS_EXPORTER: "none",
        OTEL_EXPORTER_OTLP_PROTOCOL: "http/json",
        OTEL_EXPORTER_OTLP_HEADERS: "authorization=Bearer%20abc, x-tenant=a",
        OTEL_RESOURCE_ATTRIBUTES: "service.name=other,zone=a%2Cb",
        OTEL_SERVICE_NAME: "farm",
        OTEL_TRACES_SAMPLER: "traceidratio",
        OTEL_TRACES_SAMPLER_ARG: "0.25"
      })) ?? assert.fail("nothing")
      assert.deepStrictEqual(options, {
        endpoints: { traces: "https://collector:4318/otlp/v1/traces", logs: "http://logs:9999/in" },
        protocol: "http/json",
        serviceName: "farm",
        attributes: { zone: "a,b" },
        sampler: { parentBased: false, ratio: 0.25 },
        metricsEveryMs: 60_000
      })
      assert.strictEqual(String(headers["authorization"]), "<redacted>")
      assert.deepStrictEqual(Object.values(headers).map(Redacted.value), ["Bearer abc", "a"])
    }))

  it.effect("have the defaults of the specification, and a name of ours", () =>
    Effect.gen(function*() {
      const options = yield* telemetryFrom(endpoint)
      assert.strictEqual(options?.protocol, "http/protobuf")
      assert.deepStrictEqual(options?.sampler, { parentBased: true, ratio: 1 })
      assert.strictEqual(options?.serviceName, "stoker")
      const named = yield* telemetryFrom({ ...endpoint, OTEL_RESOURCE_ATTRIBUTES: "service.name=farm" })
      assert.strictEqual(named?.serviceName, "farm")
    }))

  it.effect("that cannot be are told by their name, without secrets", () =>
    Effect.gen(function*() {
      const wrong: ReadonlyArray<readonly [string, string]> = [
        ["OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"],
        ["OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:s3cret@collector:4318"],
        ["OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"],
        ["OTEL_EXPORTER_OTLP_HEADERS", "s3cret"],
        ["OTEL_EXPORTER_OTLP_HEADERS", "a=%s3cret"],
        ["OTEL_TRACES_SAMPLER", "jaeger_remote"],
        ["OTEL_TRACES_SAMPLER_ARG", "2"],
        ["OTEL_METRIC_EXPORT_INTERVAL", "soon"],
        ["OTEL_LOGS_EXPORTER", "console"]
      ]
      for (const [name, value] of wrong) {
        const error = yield* Effect.flip(telemetryFrom({ ...endpoint, [name]: value }))
        assert.strictEqual(error.variable, name)
        assert.notInclude(error.message, "s3cret")
      }
    }))
})
