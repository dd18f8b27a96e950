/** Logs on stderr: for people on a terminal, JSON lines for everything else. LOG_LEVEL says how much. */
import { Cause, Config, Effect, Layer, Logger, type LogLevel, Option, References } from "effect"
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

/** `usual` is the level when LOG_LEVEL is not set; a `--log-level` flag is stronger than both. */
export const layer = (options: { readonly format: LogFormat; readonly usual: LogLevel.LogLevel }) => {
  const isPretty = options.format === "pretty" || (options.format === "auto" && terminal("stderr").isTerminal)
  const logger = isPretty
    ? Logger.consolePretty({ colors: wantsColour("stderr"), mode: "tty" })
    : Logger.withConsoleError(json)
  const level = Effect.gen(function*() {
    const flag = Option.flatten(yield* Effect.serviceOption(GlobalFlag.LogLevel))
    if (Option.isSome(flag)) return flag.value
    return yield* Config.LogLevel("LOG_LEVEL").pipe(
      Config.withDefault(options.usual),
      Effect.orElseSucceed(() => options.usual)
    )
  })
  return Layer.mergeAll(
    Logger.layer([logger]),
    Layer.succeed(References.LogToStderr, true),
    Layer.effect(References.MinimumLogLevel, level)
  )
}
