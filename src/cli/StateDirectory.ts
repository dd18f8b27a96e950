/** Where Stoker keeps its things when no flag says so. */
import { Config, Effect, Option } from "effect"
import { statSync } from "node:fs"
import { homedir } from "node:os"
import { join, resolve } from "node:path"
import { usageFailure } from "./CliFailure.ts"

const environment = Config.all({
  stoker: Config.option(Config.NonEmptyString("STOKER_STATE")),
  xdg: Config.option(Config.NonEmptyString("XDG_STATE_HOME"))
})

/** `--state`, else STOKER_STATE, else /var/lib/stoker for root and `~/.local/state/stoker` (XDG) for others. */
export const stateDirectory = Effect.fnUntraced(function*(flag: Option.Option<string>) {
  const { stoker, xdg } = yield* Effect.orDie(environment)
  const usual = () =>
    process.getuid?.() === 0
      ? "/var/lib/stoker"
      : join(Option.getOrElse(xdg, () => join(homedir(), ".local", "state")), "stoker")
  return resolve(Option.getOrElse(Option.orElse(flag, () => stoker), usual))
})

/** For commands that only read: a directory that some worker has used. */
export const existingState = Effect.fnUntraced(function*(flag: Option.Option<string>) {
  const directory = yield* stateDirectory(flag)
  if (statSync(join(directory, "journal.sqlite"), { throwIfNoEntry: false }) === undefined) {
    return yield* usageFailure(
      `no job has run yet with the state directory ${directory}`,
      "Name the worker's directory with --state or STOKER_STATE, or run something first: stoker run -- uname -a"
    )
  }
  return directory
})
