/** Where telemetry goes, as OpenTelemetry's own environment variables say it. Small: nothing of the export is loaded. */
import { Config, Effect, Redacted, Schema } from "effect"

export type Signal = "traces" | "metrics" | "logs"

/** Which traces are kept. The ratio is of all trace ids, 0 to 1, so that every service keeps the same ones. */
export interface Sampler {
  /** A job whose sender has decided goes with that. */
  readonly parentBased: boolean
  readonly ratio: number
}

/** Where traces, metrics and logs are sent, and how much of them. */
export interface OtlpOptions {
  /** One whole URL, without credentials, for each signal that is sent. */
  readonly endpoints: Readonly<Partial<Record<Signal, string>>>
  readonly protocol: "http/json" | "http/protobuf"
  /** Sent with each request; these are often secrets. */
  readonly headers: Readonly<Record<string, Redacted.Redacted<string>>>
  readonly serviceName: string
  readonly attributes: Readonly<Record<string, string>>
  readonly sampler: Sampler
  /** Milliseconds between two exports of metrics. */
  readonly metricsEveryMs: number
}

/** A variable says what Stoker cannot do. */
export class OtlpInvalid extends Schema.TaggedError<OtlpInvalid>()("OtlpInvalid", {
  variable: Schema.String,
  reason: Schema.String,
  remedy: Schema.String
}) {
  override get message() {
    return `${this.variable}: ${this.reason}. ${this.remedy}`
  }
}

const invalid = (variable: string, reason: string, remedy: string) => new OtlpInvalid({ variable, reason, remedy })

/** An empty variable counts as unset, as the specification wants it. */
const variable = (name: string) =>
  Config.String(name).pipe(
    Config.withDefault(""),
    Effect.map((text) => text.trim()),
    Effect.mapError(() => invalid(name, "it cannot be read", "Set it to text, or unset it."))
  )

/** `a=b,c=d` with percent-encoded values. */
const pairs = Effect.fnUntraced(function*(name: string) {
  const text = yield* variable(name)
  return yield* Effect.forEach(text === "" ? [] : text.split(","), (part) => {
    const at = part.indexOf("=")
    const wrong = () =>
      invalid(name, "it is not a list of KEY=VALUE", "Write key=value,key=value, values percent-encoded.")
    return at < 1
      ? Effect.fail(wrong())
      : Effect.try({
        try: () => [part.slice(0, at).trim(), decodeURIComponent(part.slice(at + 1).trim())] as const,
        catch: wrong
      })
  })
})

const endpoint = Effect.fnUntraced(function*(name: string, path: string) {
  const text = yield* variable(name)
  if (text === "") return undefined
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url === undefined || (url.protocol !== "http:" && url.protocol !== "https:")) {
    return yield* invalid(name, "it is no http or https URL", "Set it to http://host:4318 or unset it.")
  }
  if (url.username !== "" || url.password !== "") {
    return yield* invalid(name, "it holds a user or password", "Put them into OTEL_EXPORTER_OTLP_HEADERS.")
  }
  if (path !== "") url.pathname = `${url.pathname.replace(/\/$/, "")}${path}`
  return url.href
})

const signals: ReadonlyArray<Signal> = ["traces", "metrics", "logs"]

const endpoints = Effect.gen(function*() {
  const found = yield* Effect.forEach(signals, (signal) =>
    Effect.gen(function*() {
      const upper = signal.toUpperCase()
      const exporter = yield* variable(`OTEL_${upper}_EXPORTER`)
      if (exporter === "none") return []
      if (exporter !== "" && exporter !== "otlp") {
        return yield* invalid(`OTEL_${upper}_EXPORTER`, `there is no exporter ${exporter}`, "Use otlp or none.")
      }
      const own = yield* endpoint(`OTEL_EXPORTER_OTLP_${upper}_ENDPOINT`, "")
      const url = own ?? (yield* endpoint("OTEL_EXPORTER_OTLP_ENDPOINT", `/v1/${signal}`))
      return url === undefined ? [] : [[signal, url] as const]
    }))
  return Object.fromEntries(found.flat())
})

const number = Effect.fnUntraced(function*(name: string, usual: number, least: number, most: number) {
  const text = yield* variable(name)
  if (text === "") return usual
  const value = Number(text)
  return value >= least && value <= most
    ? value
    : yield* invalid(name, `${text} is no number from ${least} to ${most}`, "Correct it or unset it.")
})

const sampler: Effect.Effect<Sampler, OtlpInvalid> = Effect.gen(function*() {
  const name = yield* variable("OTEL_TRACES_SAMPLER")
  const ratio = yield* number("OTEL_TRACES_SAMPLER_ARG", 1, 0, 1)
  switch (name) {
    case "":
    case "parentbased_always_on":
      return { parentBased: true, ratio: 1 }
    case "parentbased_always_off":
      return { parentBased: true, ratio: 0 }
    case "parentbased_traceidratio":
      return { parentBased: true, ratio }
    case "always_on":
      return { parentBased: false, ratio: 1 }
    case "always_off":
      return { parentBased: false, ratio: 0 }
    case "traceidratio":
      return { parentBased: false, ratio }
    default:
      return yield* invalid(
        "OTEL_TRACES_SAMPLER",
        `there is no sampler ${name}`,
        "Use always_on, always_off, traceidratio, or one of them with parentbased_ before it."
      )
  }
})

const protocols = ["http/json", "http/protobuf"] as const

const protocol = Effect.gen(function*() {
  const name = yield* variable("OTEL_EXPORTER_OTLP_PROTOCOL")
  if (name === "") return "http/protobuf"
  return protocols.find((known) => known === name) ??
    (yield* invalid("OTEL_EXPORTER_OTLP_PROTOCOL", `${name} is not spoken here`, `Use ${protocols.join(" or ")}.`))
})

/** What the environment asks for; nothing if it names no endpoint or disables all of it. */
export const read: Effect.Effect<OtlpOptions | undefined, OtlpInvalid> = Effect.gen(function*() {
  if ((yield* variable("OTEL_SDK_DISABLED")).toLowerCase() === "true") return undefined
  const to = yield* endpoints
  if (Object.keys(to).length === 0) return undefined
  const attributes = Object.fromEntries(yield* pairs("OTEL_RESOURCE_ATTRIBUTES"))
  const { "service.name": named, ...others } = attributes
  const name = yield* variable("OTEL_SERVICE_NAME")
  const headers = yield* pairs("OTEL_EXPORTER_OTLP_HEADERS")
  return {
    endpoints: to,
    protocol: yield* protocol,
    headers: Object.fromEntries(headers.map(([key, value]) => [key, Redacted.make(value)])),
    serviceName: name === "" ? named ?? "stoker" : name,
    attributes: others,
    sampler: yield* sampler,
    metricsEveryMs: yield* number("OTEL_METRIC_EXPORT_INTERVAL", 60_000, 100, 86_400_000)
  }
})
