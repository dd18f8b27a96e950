/**
 * Sends traces, metrics and logs to an OpenTelemetry endpoint. Loaded only where one is configured. Whatever is wrong
 * with the endpoint, the worker goes on: what cannot be sent is dropped, and said once.
 */
import { ConfigProvider, Duration, Effect, Exit, Fiber, Layer, Logger, Metric, Redacted, Scope, Tracer } from "effect"
import { FetchHttpClient, HttpClient, HttpClientError } from "effect/http"
import { OtlpExporter, OtlpLogger, OtlpMetrics, OtlpSerialization, OtlpTracer } from "effect/observability"
import { codeOf } from "../host/Errno.ts"
import { metrics } from "./Metrics.ts"
import type { OtlpOptions } from "./OtlpOptions.ts"
import { sampled } from "./Sampling.ts"

/** What is known of the worker beyond the environment. */
export interface OtlpWorker {
  readonly instance: string
  readonly version: string
}

/** One request. */
const requestLimit = "5 seconds"
/** What is left at the end has this long to go out, all signals together. */
const flushLimit = Duration.seconds(2)

/** Why, without the URL and its headers. */
const whyOf = (error: unknown): string => {
  if (!HttpClientError.isHttpClientError(error)) return String(error)
  const { reason } = error
  if ("description" in reason && reason.description !== undefined) return reason.description
  if (reason._tag === "StatusCodeError") return `it answered ${reason.response.status}`
  const cause = "cause" in reason ? reason.cause : undefined
  const code = codeOf(cause instanceof Error && cause.cause !== undefined ? cause.cause : cause)
  return code === "unknown" ? reason._tag : code
}

/** Counts failures, and says when they begin and when they are over. */
const reporting = (client: HttpClient.HttpClient): HttpClient.HttpClient => {
  const failing = new Set<string>()
  const failed = Effect.fnUntraced(function*(url: string, why: string) {
    yield* Metric.update(metrics.otlpFailures.series({}), 1)
    if (failing.size === 0) {
      yield* Effect.logWarning(
        `telemetry cannot be sent to ${new URL(url).host}: ${why}. Jobs are not affected, telemetry is dropped ` +
          "meanwhile. Check OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_EXPORTER_OTLP_HEADERS"
      )
    }
    failing.add(url)
  })
  const succeeded = Effect.fnUntraced(function*(url: string) {
    if (!failing.delete(url) || failing.size > 0) return
    yield* Effect.logInfo(`telemetry is sent to ${new URL(url).host} again`)
  })
  return HttpClient.transform(client, (response, request) =>
    response.pipe(
      Effect.timeoutOrElse({
        duration: requestLimit,
        orElse: () =>
          Effect.fail(
            new HttpClientError.HttpClientError({
              reason: new HttpClientError.TransportError({ request, description: `no answer within ${requestLimit}` })
            })
          )
      }),
      Effect.tap(({ status }) => status < 400 ? succeeded(request.url) : failed(request.url, `it answered ${status}`)),
      Effect.tapError((error) => failed(request.url, whyOf(error)))
    ))
}

const layerClient = Layer.effect(
  HttpClient.HttpClient,
  // Seen as 0 before its first rise.
  Effect.andThen(Metric.update(metrics.otlpFailures.series({}), 0), Effect.map(HttpClient.HttpClient, reporting))
).pipe(
  Layer.provide(FetchHttpClient.layer)
)

const exporters = (options: OtlpOptions, { instance, version }: OtlpWorker) => {
  const { endpoints, metricsEveryMs, protocol } = options
  const common = {
    resource: {
      serviceName: options.serviceName,
      serviceVersion: version,
      attributes: { "service.instance.id": instance, ...options.attributes }
    },
    headers: Object.fromEntries(Object.entries(options.headers).map(([name, value]) => [name, Redacted.value(value)])),
    shutdownTimeout: flushLimit
  }
  const tracer = (url: string) =>
    Layer.effect(
      Tracer.Tracer,
      Effect.map(OtlpTracer.make({ ...common, url }), (tracer) => sampled(tracer, options.sampler))
    )
  const logger = (url: string) => Logger.layer([OtlpLogger.make({ ...common, url })], { mergeWithExisting: true })
  const meter = (url: string) =>
    Layer.effectDiscard(OtlpMetrics.make({ ...common, url, exportInterval: metricsEveryMs }))
  return Layer.mergeAll(
    Layer.empty,
    ...(endpoints.traces === undefined ? [] : [tracer(endpoints.traces)]),
    ...(endpoints.logs === undefined ? [] : [logger(endpoints.logs)]),
    ...(endpoints.metrics === undefined ? [] : [meter(endpoints.metrics)])
  ).pipe(
    Layer.provide(OtlpExporter.layerFlusher),
    Layer.provide(protocol === "http/json" ? OtlpSerialization.layerJson : OtlpSerialization.layerProtobuf),
    Layer.provide(layerClient),
    // The variables were read before, with their errors told.
    Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnvRecord({})))
  )
}

/** Tracer, logger and metrics export. Closing it sends what is left, within a limit. */
export const layer = (options: OtlpOptions, worker: OtlpWorker) =>
  Layer.effectContext(Effect.gen(function*() {
    const scope = yield* Effect.acquireRelease(Scope.make("parallel"), (scope) =>
      Effect.forkDetach(Scope.close(scope, Exit.void), { startImmediately: true }).pipe(
        Effect.flatMap(Fiber.join),
        Effect.timeoutOption(flushLimit)
      ))
    return yield* Layer.buildWithScope(exporters(options, worker), scope)
  }))
