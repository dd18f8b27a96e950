/** Logs on stderr: for people on a terminal, JSON lines for everything else. LOG_LEVEL says how much. */
import { Cause, Config, Effect, Layer, Logger, LogLevel, Option, References } from "effect"
import { GlobalFlag } from "effect/cli"
import { terminal, wantsColour } from "./Output.ts"

export type LogFormat = "auto" | "pretty" | "json"

/** Which job a line is about and whose trace it belongs to: at the top of a JSON line, where collectors look. */
const CORRELATED: ReadonlySet<string> = new Set(["job", "attempt", "instance", "trace_id", "span_id"])

/** What JSON can hold; a number stays one. */
const plain = (value: unknown): unknown =>
  value === null || ["string", "number", "boolean"].includes(typeof value)
    ? value
    : value instanceof Error
    ? value.message
    : typeof value === "object" && !Array.isArray(value)
    ? value
    : String(value)

const textOf = (message: unknown): string => {
  if (typeof message === "string") return message
  if (Array.isArray(message)) return message.map(textOf).join(" ")
  return message instanceof Error ? message.message : JSON.stringify(message) ?? String(message)
}

/**
 * One JSON object a line, whose form is kept:
 *
 * - `timestamp`: ISO 8601, UTC, milliseconds
 * - `level`: TRACE, DEBUG, INFO, WARN, ERROR, FATAL
 * - `message`: text
 * - `job` (`intake/owner/id`), `attempt` (1 for the first), `instance` (of the worker): of lines about a job
 * - `trace_id`, `span_id` (hexadecimal): of lines about a job that belongs to a trace
 * - `cause`: what failed, with its stack, over several lines of text
 * - `annotations`: everything else that is known, by name; may be empty
 *
 * What is not there is left out. Values that Stoker keeps as secrets (`Redacted`) show as `<redacted>`.
 */
export const json: Logger.Logger<unknown, string> = Logger.make(({ cause, date, fiber, logLevel, message }) => {
  const all = Object.entries(fiber.getRef(References.CurrentLogAnnotations)).map(([name, value]) =>
    [name, plain(value)] as const
  )
  return JSON.stringify({
    timestamp: date.toISOString(),
    level: logLevel.toUpperCase(),
    message: textOf(message),
    ...Object.fromEntries(all.filter(([name]) => CORRELATED.has(name))),
    ...(cause.reasons.length === 0 ? {} : { cause: Cause.pretty(cause) }),
    annotations: Object.fromEntries(all.filter(([name]) => !CORRELATED.has(name)))
  })
})

/** Says how much is logged, as long as it is asked. */
export interface LogLevels {
  readonly set: (level: LogLevel.LogLevel) => Effect.Effect<void>
}

const loggerOf = (format: LogFormat) =>
  format === "pretty" || (format === "auto" && terminal("stderr").isTerminal)
    ? Logger.consolePretty({ colors: wantsColour("stderr"), mode: "tty" })
    : Logger.withConsoleError(json)

/** `--log-level`, else LOG_LEVEL, if one of them says something. */
export const asked = Effect.gen(function*() {
  const flag = Option.flatten(yield* Effect.serviceOption(GlobalFlag.LogLevel))
  if (Option.isSome(flag)) return flag
  return yield* Config.option(Config.LogLevel("LOG_LEVEL")).pipe(
    Effect.orElseSucceed(() => Option.none<LogLevel.LogLevel>())
  )
})

/** `usual` is the level when LOG_LEVEL is not set; a `--log-level` flag is stronger than both. */
export const layer = (options: { readonly format: LogFormat; readonly usual: LogLevel.LogLevel }) =>
  Layer.mergeAll(
    Logger.layer([loggerOf(options.format)]),
    Layer.succeed(References.LogToStderr, true),
    Layer.effect(References.MinimumLogLevel, Effect.map(asked, Option.getOrElse(() => options.usual)))
  )

/** A log whose level may change while it is written, unless it is fixed. */
export const adjustable = (options: {
  readonly format: LogFormat
  readonly level: LogLevel.LogLevel
  readonly isFixed: boolean
}) => {
  let least = options.level
  const inner = loggerOf(options.format)
  const logger = Logger.make<unknown, unknown>((entry) =>
    LogLevel.isGreaterThanOrEqualTo(entry.logLevel, least) ? inner.log(entry) : undefined
  )
  const levels: LogLevels = { set: (level) => Effect.sync(() => void (least = level)) }
  return {
    levels,
    layer: Layer.mergeAll(
      Logger.layer([logger]),
      Layer.succeed(References.LogToStderr, true),
      // The fibers that run have their minimum for life: all is let through to the logger, which decides.
      Layer.succeed(References.MinimumLogLevel, options.isFixed ? options.level : "All")
    )
  }
}
