/** Where Stoker keeps its things when no flag says so. */
import { Config, Effect, Option } from "effect"
import { access } from "node:fs/promises"
import { homedir } from "node:os"
import { join, resolve } from "node:path"
import { usageFailure } from "./CliFailure.ts"

const environment = Config.all({
  stoker: Config.option(Config.NonEmptyString("STOKER_STATE")),
  xdg: Config.option(Config.NonEmptyString("XDG_STATE_HOME"))
})

/**
 * `--state`, else STOKER_STATE, else what the configuration file says, else /var/lib/stoker for root and
 * `~/.local/state/stoker` (XDG) for others.
 */
export const stateDirectory = Effect.fnUntraced(function*(flag: Option.Option<string>, configured?: string) {
  const { stoker, xdg } = yield* Effect.orDie(environment)
  const usual = () =>
    configured ?? (process.getuid?.() === 0
      ? "/var/lib/stoker"
      : join(Option.getOrElse(xdg, () => join(homedir(), ".local", "state")), "stoker"))
  return resolve(Option.getOrElse(Option.orElse(flag, () => stoker), usual))
})

const unusable = (directory: string, cause: unknown) => {
  const code = cause instanceof Error && "code" in cause ? cause.code : undefined
  return code === "ENOENT"
    ? usageFailure(
      `no job has run yet with the state directory ${directory}`,
      "Name the worker's directory with --state or STOKER_STATE, or run something first: stoker run -- uname -a"
    )
    : usageFailure(
      `the state directory ${directory} cannot be read: ${cause instanceof Error ? cause.message : String(cause)}`,
      "Run this as the user the worker runs as, or name another directory with --state or STOKER_STATE."
    )
}

/** For commands that only read: a directory that some worker has used. */
export const existingState = Effect.fnUntraced(function*(flag: Option.Option<string>) {
  const directory = yield* stateDirectory(flag)
  yield* Effect.tryPromise({
    try: () => access(join(directory, "journal.sqlite")),
    catch: (cause) => unusable(directory, cause)
  })
  return directory
})
