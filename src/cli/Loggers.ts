/** Logs on stderr: for people on a terminal, JSON lines for everything else. LOG_LEVEL says how much. */
import { Config, Effect, Layer, Logger, LogLevel, Option, References } from "effect"
import { GlobalFlag } from "effect/cli"
import { terminal, wantsColour } from "./Output.ts"

export type LogFormat = "auto" | "pretty" | "json"

/** Says how much is logged, as long as it is asked. */
export interface LogLevels {
  readonly set: (level: LogLevel.LogLevel) => Effect.Effect<void>
}

const loggerOf = (format: LogFormat) =>
  format === "pretty" || (format === "auto" && terminal("stderr").isTerminal)
    ? Logger.consolePretty({ colors: wantsColour("stderr"), mode: "tty" })
    : Logger.withConsoleError(Logger.formatJson)

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
