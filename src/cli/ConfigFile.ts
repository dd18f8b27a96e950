/** Finds and reads a worker's configuration file. */
import { Config, Effect, Option, Redacted, Result } from "effect"
import { readFile } from "node:fs/promises"
import { dirname, resolve } from "node:path"
import type { DaemonConfig, FileObjectStore, FileSecret, FileWebhooks } from "../schemas/DaemonConfig.ts"
import { type CliFailure, usageFailure } from "./CliFailure.ts"

/** Where a system service's file usually lies. It is read only when it is named, so that nobody gets it by accident. */
export const USUAL_PLACE = "/etc/stoker/stoker.json"

export interface ConfigFile {
  /** Absolute. */
  readonly path: string
  readonly content: DaemonConfig
}

/** `--config`, else STOKER_CONFIG; without them there is no file. */
export const configPath = Effect.fnUntraced(function*(flag: Option.Option<string>) {
  const variable = yield* Effect.orDie(Config.option(Config.NonEmptyString("STOKER_CONFIG")))
  return Option.map(Option.orElse(flag, () => variable), (path) => resolve(path))
})

const textOf = (cause: unknown) => cause instanceof Error ? cause.message : String(cause)

/** Reads a file, or tells everything that is wrong with it. */
export const readConfig = Effect.fnUntraced(function*(path: string) {
  const text = yield* Effect.tryPromise({
    try: () => readFile(path, "utf8"),
    catch: (cause) =>
      usageFailure(
        `the configuration file cannot be read: ${textOf(cause)}`,
        "Name another one with --config or STOKER_CONFIG, or begin with: stoker config example"
      )
  })
  // Loaded only by whoever has a file.
  const { readDaemonConfig } = yield* Effect.promise(() => import("../schemas/DaemonText.ts"))
  const { faultLine } = yield* Effect.promise(() => import("../schemas/JsonDocument.ts"))
  const read = readDaemonConfig(text)
  if (Result.isFailure(read)) {
    return yield* usageFailure(
      [`the configuration file ${path} is wrong:`, ...read.failure.map((fault) => `  ${faultLine(fault)}`)].join("\n"),
      "`stoker config example` shows every field with its default."
    )
  }
  const file: ConfigFile = { path, content: read.success }
  return file
})

/** A path in a file, which may be relative to the file. */
export const besideFile = (file: ConfigFile, path: string): string => resolve(dirname(file.path), path)

const secretFailure = (field: string, what: string) =>
  usageFailure(`${field}: ${what}`, "Put it there, or name another place for it.")

/** What the first line of a file says. */
const firstLine = Effect.fnUntraced(function*(file: ConfigFile, field: string, name: string) {
  const path = besideFile(file, name)
  const text = yield* Effect.tryPromise({
    try: () => readFile(path, "utf8"),
    catch: (cause) => secretFailure(field, textOf(cause))
  })
  const [line = ""] = text.split("\n")
  return line.trim() === ""
    ? yield* secretFailure(field, `the first line of ${path} is empty`)
    : Redacted.make(line.trim())
})

/** What an environment variable says. */
const variable = Effect.fnUntraced(function*(field: string, name: string) {
  const value = yield* Effect.orDie(Config.option(Config.NonEmptyString(name)))
  return Option.isSome(value)
    ? Redacted.make(value.value)
    : yield* secretFailure(field, `the environment variable ${name} is not set`)
})

/** The address that a file has or points to. */
export const readSecret = (
  file: ConfigFile,
  field: string,
  { url, urlEnv = "", urlFile }: FileSecret
): Effect.Effect<Redacted.Redacted<string>, CliFailure> => {
  if (url !== undefined) return Effect.succeed(Redacted.make(url))
  return urlFile === undefined
    ? variable(`${field}.urlEnv`, urlEnv)
    : firstLine(file, `${field}.urlFile`, urlFile)
}

/** The secret that signs what is posted. */
export const readWebhookSecret = (
  file: ConfigFile,
  { secretEnv = "", secretFile }: FileWebhooks
): Effect.Effect<Redacted.Redacted<string>, CliFailure> =>
  secretFile === undefined
    ? variable("api.webhooks.secretEnv", secretEnv)
    : firstLine(file, "api.webhooks.secretFile", secretFile)

/** The two keys of the object store. */
export const readStoreKeys = Effect.fnUntraced(function*(file: ConfigFile, store: FileObjectStore) {
  const key = (name: "accessKey" | "secretKey") => {
    const path = store[`${name}File`]
    return path === undefined
      ? variable(`objectStore.${name}Env`, store[`${name}Env`] ?? "")
      : firstLine(file, `objectStore.${name}File`, path)
  }
  return { accessKey: yield* key("accessKey"), secretKey: yield* key("secretKey") }
})
