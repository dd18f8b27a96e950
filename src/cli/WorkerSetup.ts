/** What a worker is started with: flags and environment over the configuration file over the defaults. */
import { Effect, type LogLevel, Option, type Redacted } from "effect"
import { resolve } from "node:path"
import type { WorkerConfig } from "../schemas/WorkerConfig.ts"
import type { ApiWiring, ObjectStoreWiring } from "../wiring.ts"
import { type ApiFlags, apiSetup } from "./ApiSetup.ts"
import { besideFile, configPath, readConfig, readSecret, readStoreKeys } from "./ConfigFile.ts"
import * as Loggers from "./Loggers.ts"
import { stateDirectory } from "./StateDirectory.ts"
import { configForWorker, type WorkerFlags } from "./WorkerConfigs.ts"

export interface SetupFlags extends WorkerFlags {
  readonly config: Option.Option<string>
  readonly amqp: Option.Option<Redacted.Redacted<string>>
  readonly journal: Option.Option<Redacted.Redacted<string>>
  readonly state: Option.Option<string>
  /** HOST:PORT for probes and metrics. */
  readonly http: Option.Option<string>
  /** Modules of functions, from the working directory. */
  readonly functions: ReadonlyArray<string>
  readonly logFormat: Option.Option<Loggers.LogFormat>
  readonly api: ApiFlags
}

export interface WorkerSetup {
  /** The file it was read from. */
  readonly file: Option.Option<string>
  /** Absolute. */
  readonly stateDirectory: string
  readonly config: WorkerConfig
  readonly amqp: Option.Option<Redacted.Redacted<string>>
  /** PostgreSQL, shared by several hosts. Absent: a file in the state directory. */
  readonly journal: Option.Option<Redacted.Redacted<string>>
  readonly http: Option.Option<string>
  /** The keys of the store that `config` has. */
  readonly objectStore: Option.Option<ObjectStoreWiring>
  /** The control plane. Absent: its doors stay closed. */
  readonly api: Option.Option<ApiWiring>
  /** Modules of functions, absolute: the file's and the flags'. */
  readonly functions: ReadonlyArray<string>
  readonly log: { readonly format: Loggers.LogFormat; readonly level: LogLevel.LogLevel }
}

/** Reads it all; asked again, it reads the file again. */
export const workerSetup = Effect.fnUntraced(function*(flags: SetupFlags) {
  const path = yield* configPath(flags.config)
  const file = Option.isSome(path) ? yield* readConfig(path.value) : { path: "", content: {} }
  const { amqp, functions = [], http, journal, log = {}, objectStore, stateDirectory: directory } = file.content
  const setup: WorkerSetup = {
    file: path,
    stateDirectory: yield* stateDirectory(
      flags.state,
      directory === undefined ? undefined : besideFile(file, directory)
    ),
    config: yield* configForWorker(flags, file.content),
    amqp: Option.isNone(flags.amqp) && amqp !== undefined
      ? Option.some(yield* readSecret(file, "amqp", amqp))
      : flags.amqp,
    journal: Option.isNone(flags.journal) && journal !== undefined
      ? Option.some(yield* readSecret(file, "journal", journal))
      : flags.journal,
    functions: [
      ...functions.map((path) => besideFile(file, path)),
      ...flags.functions.map((path) => resolve(path))
    ],
    http: Option.orElse(flags.http, () => Option.fromUndefinedOr(http?.listen)),
    objectStore: objectStore === undefined ? Option.none() : Option.some(yield* readStoreKeys(file, objectStore)),
    api: yield* apiSetup(flags.api, file),
    log: {
      format: Option.getOrElse(flags.logFormat, () => log.format ?? "auto"),
      level: Option.getOrElse(yield* Loggers.asked, () => log.level ?? "Info")
    }
  }
  return setup
})
