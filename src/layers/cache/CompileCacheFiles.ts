/**
 * The compile cache as files, which all workers of a state directory share: one for each result, named by its key, written
 * elsewhere and renamed into place, checked at each reading. Nothing is synced to the disk: what a crash of the machine
 * damages is not believed.
 */
import { Clock, Effect, Layer, Option, Semaphore } from "effect"
import { constants } from "node:fs"
import * as fs from "node:fs/promises"
import { join } from "node:path"
import { DiskSpace } from "../host/DiskSpace.ts"
import { codeOf } from "../host/Errno.ts"
import { makeFolder } from "../host/Folder.ts"
import { Host, type HostError } from "../host/Host.ts"
import { within } from "../Release.ts"
import { metrics } from "../telemetry/Metrics.ts"
import { attempt, CacheFault, fault } from "./CacheFault.ts"
import * as CacheRoom from "./CacheRoom.ts"
import { drop } from "./CacheRoom.ts"
import {
  blocksOf,
  chargeOf,
  CompileCache,
  type CompileCacheService,
  type Compiled,
  type CompileKey,
  mostBytesOf,
  off,
  sizeOf
} from "./CompileCache.ts"
import { decode, encode } from "./CompiledFormat.ts"

export interface CompileCacheOptions {
  /** All results together, on the disk. 0: none is kept. Bytes. */
  readonly maximumBytes: number
  /** Nothing is kept while less than this would be left free on the disk. Bytes. */
  readonly reserveBytes: number
}

/** A worker for one job is gone before it has looked at what all others kept. */
const TRIM_AFTER = "1 second"

/** Head and hash beside the products, at most. */
const OVERHEAD = 1024 * 1024

/** No link is followed, and no pipe is waited for. */
const READ = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK

/** How a file that is not there, or is a link, answers. */
const NO_FILE = ["ENOENT", "ELOOP"]

/** Makes a directory that is ours alone. */
const ownFolder = Effect.fnUntraced(function*(path: string) {
  yield* makeFolder(path, fault("open", path))
  const stat = yield* attempt("open", path, () => fs.lstat(path))
  if (!stat.isDirectory() || stat.uid !== process.getuid?.()) {
    return yield* new CacheFault({
      operation: "open",
      reason: `${path} is not a directory of the worker's user`,
      remedy: "Remove it; it is made again"
    })
  }
})

/** The bytes of a regular file, used now; undefined if it is none, or larger than any entry. */
const readEntry = async (path: string, mostBytes: number, nowMs: number): Promise<Buffer | undefined> => {
  const file = await fs.open(path, READ)
  try {
    const stat = await file.stat()
    if (!stat.isFile() || stat.size > mostBytes + OVERHEAD) return undefined
    await file.utimes(nowMs / 1000, nowMs / 1000)
    return await file.readFile()
  } finally {
    await file.close()
  }
}

const writeEntry = async (path: string, bytes: Uint8Array, nowMs: number): Promise<void> => {
  const file = await fs.open(path, "wx", 0o600)
  try {
    await file.writeFile(bytes)
    await file.utimes(nowMs / 1000, nowMs / 1000)
  } finally {
    await file.close()
  }
}

const make = Effect.fnUntraced(function*({ maximumBytes, reserveBytes }: CompileCacheOptions) {
  const { instance, isAlive, paths } = yield* Host
  const { free } = yield* DiskSpace
  const context = yield* Effect.context<never>()
  const entries = join(paths.state, "cache", "compiled")
  const pending = join(entries, "pending")
  const mostBytes = mostBytesOf(maximumBytes)
  const pathOf = (key: CompileKey) => join(entries, key)
  const gauge = metrics.compileCacheBytes.series({})

  let warned = false
  /** Once, until it goes well again: on a full disk each job would say so. */
  const warn = (error: CacheFault | HostError) =>
    Effect.suspend(() => {
      if (warned) return Effect.logDebug("the compile cache could not be used", error)
      warned = true
      return Effect.logWarning(
        `the compile cache could not be used, and such programs are compiled each time: ${error.message}`
      )
    })

  yield* ownFolder(entries)
  yield* ownFolder(pending)
  const onCount = (bytes: number) => gauge.updateUnsafe(bytes, context)
  const room = CacheRoom.make({ entries, pending, maximumBytes, instance, isAlive, onCount })
  yield* room.tidy
  yield* Effect.addFinalizer(() => within("room in the compile cache", "2 seconds")(room.giveBack))
  const turn = yield* Semaphore.make(1)
  const alone = Semaphore.withPermits(turn, 1)
  yield* Effect.sleep(TRIM_AFTER).pipe(Effect.andThen(alone(room.trim)), Effect.catch(warn), Effect.forkScoped)

  const store = Effect.fnUntraced(function*(key: CompileKey, compiled: Compiled) {
    const freeBytes = yield* free
    const bytes = encode(key, compiled)
    if (freeBytes < reserveBytes + blocksOf(bytes.length)) return
    if (!(yield* room.take(chargeOf(bytes.length, maximumBytes)))) return
    const path = room.pendingPath("new")
    const now = yield* Clock.currentTimeMillis
    yield* attempt("write", path, () => writeEntry(path, bytes, now)).pipe(
      Effect.andThen(attempt("write", pathOf(key), () => fs.rename(path, pathOf(key)))),
      Effect.onError(() => drop(path))
    )
    warned = false
  })

  const find = Effect.fnUntraced(function*(key: CompileKey) {
    const path = pathOf(key)
    const now = yield* Clock.currentTimeMillis
    const read = yield* Effect.result(attempt("read", path, () => readEntry(path, mostBytes, now)))
    if (read._tag === "Failure" && !NO_FILE.includes(codeOf(read.failure.cause))) yield* warn(read.failure)
    if (read._tag === "Failure" && codeOf(read.failure.cause) !== "ELOOP") return Option.none()
    const found = read._tag === "Success" && read.success !== undefined ? decode(key, read.success) : Option.none()
    if (Option.isNone(found)) {
      yield* Effect.logDebug(`${path} is damaged and removed`)
      yield* drop(path)
    }
    return found
  })

  const cache: CompileCacheService = {
    mostBytes,
    get: Effect.fn("CompileCache.get")(find),
    put: Effect.fn("CompileCache.put")((key, compiled) =>
      sizeOf(compiled) > mostBytes
        ? Effect.void
        : alone(store(key, compiled)).pipe(Effect.catch(warn))
    )
  }
  return cache
})

/**
 * Results in `<state>/cache/compiled`. A directory that cannot be used is told in the log, and nothing is kept: no worker
 * stays away for it.
 */
export const layer = (options: CompileCacheOptions): Layer.Layer<never, never, DiskSpace | Host> =>
  Layer.effect(
    CompileCache,
    options.maximumBytes === 0
      ? Effect.succeed(off)
      : make(options).pipe(
        Effect.catch((error) => Effect.as(Effect.logWarning(`there is no compile cache: ${error.message}`), off))
      )
  )
