/** Logs on stderr: for people on a terminal, JSON lines for everything else. LOG_LEVEL says how much. */
import { Config, Effect, Layer, Logger, type LogLevel, Option, References } from "effect"
import { GlobalFlag } from "effect/cli"
import { terminal, wantsColour } from "./Output.ts"

export type LogFormat = "auto" | "pretty" | "json"

/** `usual` is the level when LOG_LEVEL is not set; a `--log-level` flag is stronger than both. */
export const layer = (options: { readonly format: LogFormat; readonly usual: LogLevel.LogLevel }) => {
  const isPretty = options.format === "pretty" || (options.format === "auto" && terminal("stderr").isTerminal)
  const logger = isPretty
    ? Logger.consolePretty({ colors: wantsColour("stderr"), mode: "tty" })
    : Logger.withConsoleError(Logger.formatJson)
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
