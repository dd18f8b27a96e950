/** The servers a user works with, by names of their own: a file that only they can read. */
import { Config, Effect, Option, Schema } from "effect"
import { chmod, mkdir, readFile, rename, rm, writeFile } from "node:fs/promises"
import { homedir } from "node:os"
import { dirname, join } from "node:path"
import { type CliFailure, usageFailure } from "../CliFailure.ts"

const ContextName = Schema.String.check(
  Schema.isPattern(/^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$/, {
    expected: "a name of 1 to 64 letters, digits, '.', '_', '@' and '-'"
  })
)

/** One server, and the files that say who we are there. Paths are absolute. */
export const ServerContext = Schema.Struct({
  /** `grpc://host:port` or `https://host:port`. */
  server: Schema.String,
  ca: Schema.optionalKey(Schema.String),
  cert: Schema.optionalKey(Schema.String),
  key: Schema.optionalKey(Schema.String),
  tokenFile: Schema.optionalKey(Schema.String)
})
export type ServerContext = typeof ServerContext.Type

/** The whole file. */
export const ContextsFile = Schema.Struct({
  current: Schema.optionalKey(ContextName),
  contexts: Schema.Record(ContextName, ServerContext)
})
export type ContextsFile = typeof ContextsFile.Type

const none: ContextsFile = { contexts: {} }

/** `$XDG_CONFIG_HOME/stoker/contexts.json`, else below `~/.config`. */
export const contextsPath = Effect.gen(function*() {
  const xdg = yield* Effect.orDie(Config.option(Config.NonEmptyString("XDG_CONFIG_HOME")))
  return join(Option.getOrElse(xdg, () => join(homedir(), ".config")), "stoker", "contexts.json")
})

export const isContextName = Schema.is(ContextName)

const decode = Schema.decodeUnknownEffect(Schema.fromJsonString(ContextsFile), { errors: "all" })

const textOf = (cause: unknown) => cause instanceof Error ? cause.message : String(cause)
const isMissing = (cause: unknown) => cause instanceof Error && "code" in cause && cause.code === "ENOENT"

/** What stands there; nothing if there is no file. */
export const readContexts = Effect.gen(function*(): Effect.fn.Return<ContextsFile, CliFailure> {
  const path = yield* contextsPath
  const text = yield* Effect.tryPromise({ try: () => readFile(path, "utf8"), catch: (cause) => ({ cause }) }).pipe(
    Effect.catch(({ cause }) =>
      isMissing(cause)
        ? Effect.undefined
        : Effect.fail(usageFailure(`${path} cannot be read: ${textOf(cause)}`, "See to its owner and mode."))
    )
  )
  if (text === undefined) return none
  return yield* decode(text).pipe(
    Effect.mapError((error) =>
      usageFailure(
        `${path} is wrong: ${error.message.replaceAll(/\s*\n\s*/g, " ")}`,
        "Repair it, or remove it and begin anew with stoker context add."
      )
    )
  )
})

/** Takes the place of what stood there, in one step. */
export const writeContexts = Effect.fnUntraced(function*(content: ContextsFile) {
  const path = yield* contextsPath
  const beside = `${path}.${process.pid}`
  yield* Effect.tryPromise({
    try: async () => {
      await mkdir(dirname(path), { recursive: true, mode: 0o700 })
      try {
        await writeFile(beside, `${JSON.stringify(content, undefined, 2)}\n`, { mode: 0o600 })
        await chmod(beside, 0o600)
        await rename(beside, path)
      } finally {
        await rm(beside, { force: true })
      }
    },
    catch: (cause) => usageFailure(`${path} cannot be written: ${textOf(cause)}`, "See to the folder's owner and mode.")
  })
})
