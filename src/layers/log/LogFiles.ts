/** Logs as files below the state directory, one for each job. */
import { Effect, Layer } from "effect"
import { createHash } from "node:crypto"
import * as fs from "node:fs/promises"
import { dirname, join } from "node:path"
import type { JobKey } from "../../schemas/Ids.ts"
import { keyText } from "../../schemas/Ids.ts"
import { codeOf } from "../host/Errno.ts"
import { makeFolder } from "../host/Folder.ts"
import { Host } from "../host/Host.ts"
import * as Release from "../Release.ts"
import type { LiveLog } from "./LiveLog.ts"
import { makeLiveLog, stillWritten } from "./LiveLog.ts"
import type { LogError, LogNotFound } from "./Log.ts"
import { Log } from "./Log.ts"
import { makeLogArchive } from "./LogArchive.ts"
import { failed, openHandle } from "./LogHandle.ts"
import * as LogPrune from "./LogPrune.ts"
import type { LogSource } from "./LogSource.ts"
import { follow, textOf } from "./LogSource.ts"

/** A hash, because a key may be longer than a file name can be; one of 256 folders, because a folder may be too full. */
const pathOf = (folder: string, key: string): string => {
  const name = createHash("sha256").update(key).digest("hex").slice(0, 32)
  return join(folder, name.slice(0, 2), `${name}.log`)
}

const attempt = <A>(operation: LogError["operation"], path: string, run: () => Promise<A>) =>
  Effect.tryPromise({ try: run, catch: (cause) => failed(operation, path, cause) })

const unlink = (operation: LogError["operation"], path: string) =>
  attempt(operation, path, () => fs.unlink(path)).pipe(
    Effect.catchIf((error) => codeOf(error.cause) === "ENOENT", () => Effect.void)
  )

/** Makes the file, its folder if need be, in place of what an older job of the same id may have left. */
const create = (path: string) =>
  openHandle(path, "wx+", "append").pipe(
    Effect.tapError((error) => {
      if (codeOf(error.cause) === "ENOENT") return makeFolder(dirname(path), (cause) => failed("append", path, cause))
      return codeOf(error.cause) === "EEXIST" ? unlink("append", path) : Effect.void
    }),
    Effect.retry({ times: 2, while: (error) => ["ENOENT", "EEXIST"].includes(codeOf(error.cause)) })
  )

const make = Effect.gen(function*() {
  const host = yield* Host
  const folder = host.paths.logs
  yield* makeFolder(folder, (cause) => failed("open", folder, cause))
  const archive = makeLogArchive(host)
  yield* Effect.addFinalizer(() => archive.close)
  /** By key. */
  const live = new Map<string, LiveLog>()
  let serial = 0

  const find = (key: JobKey): Effect.Effect<LogSource, LogNotFound | LogError> =>
    Effect.suspend(() => {
      const log = live.get(keyText(key))
      return log === undefined ? archive.find(key, pathOf(folder, keyText(key))) : Effect.succeed(log.source)
    })

  /** From here on the log is read like any other file. */
  const letGo = (key: JobKey, log: LiveLog) =>
    Effect.sync(() => {
      if (live.get(keyText(key)) !== log) return
      live.delete(keyText(key))
      const stored = log.stored()
      if (stored !== undefined) archive.put(stored)
    })

  const open: Log["Service"]["open"] = Effect.fn("Log.open")(function*(key, options) {
    const path = pathOf(folder, keyText(key))
    const preamble = { ...options, key: keyText(key), instance: host.instance, serial: serial++ }
    const log = yield* makeLiveLog(preamble, create(path))
    yield* Effect.acquireRelease(
      Effect.gen(function*() {
        const former = live.get(keyText(key))
        live.set(keyText(key), log)
        archive.drop(key)
        if (former !== undefined) yield* former.replace
        if (options.attempt > 1 || former !== undefined) yield* unlink("open", path)
      }).pipe(Effect.onError(() => Effect.sync(() => live.delete(keyText(key))))),
      () =>
        log.abandon.pipe(
          Effect.ensuring(letGo(key, log)),
          Effect.ensuring(log.wake),
          Release.within(`log of ${keyText(key)}`, "5 seconds")
        )
    )
    return log.writer
  })

  return Log.of({
    open,
    read: (key, options) => follow(find(key), options),
    text: Effect.fn("Log.text")((key, stream, maxBytes) => textOf(find(key), stream, maxBytes)),
    remove: Effect.fn("Log.remove")(function*(key) {
      if (live.has(keyText(key))) return yield* stillWritten(key)
      archive.drop(key)
      yield* unlink("remove", pathOf(folder, keyText(key)))
    }),
    prune: yield* LogPrune.make(folder, (key) => live.has(key))
  })
})

/** Logs in `<state>/logs`, which other workers and commands on this host read as well. */
export const layer: Layer.Layer<Log, LogError, Host> = Layer.effect(Log, make)
