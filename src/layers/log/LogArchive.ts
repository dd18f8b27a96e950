/** Logs whose writer is not in this process: ended ones, those of other workers on this host, and of dead ones. */
import { Effect } from "effect"
import type { JobKey } from "../../schemas/Ids.ts"
import { keyText } from "../../schemas/Ids.ts"
import { codeOf } from "../host/Errno.ts"
import type { Host } from "../host/Host.ts"
import { monotonicMs } from "../Now.ts"
import type { LogSlice } from "./Log.ts"
import { LogError, LogNotFound } from "./Log.ts"
import { decodePreamble, identityOf, mostHeadBytes } from "./LogFormat.ts"
import type { LogHandle } from "./LogHandle.ts"
import { openHandle } from "./LogHandle.ts"
import type { Range } from "./LogRun.ts"
import type { LogSource } from "./LogSource.ts"
import { concludeStored, readStored, scan, StoredLog } from "./StoredLog.ts"

/** So many files are kept open, with their indexes, for the next read. */
const mostOpen = 128
/** An ended log can only go away; for so long it is not asked whether it has. */
const trustedMs = 1000
/** How late a reader hears of what another process wrote. Nothing tells us, so the file is asked. */
const pollMs = 100

interface Entry {
  readonly stored: StoredLog
  readonly source: LogSource
  checkedAtMs: number
}

export interface LogArchive {
  readonly find: (key: JobKey, path: string) => Effect.Effect<LogSource, LogNotFound | LogError>
  /** Takes over a file that is known already. */
  readonly put: (stored: StoredLog) => void
  /** The file is gone, or about to go. */
  readonly drop: (key: JobKey) => void
  readonly close: Effect.Effect<void>
}

export const makeLogArchive = (host: Host["Service"]): LogArchive => {
  /** By key, least recently used first. */
  const entries = new Map<string, Entry>()

  const drop = (text: string) => {
    entries.get(text)?.stored.handle.close()
    entries.delete(text)
  }

  const add = (stored: StoredLog, nowMs: number): LogSource => {
    const text = stored.preamble.key
    drop(text)
    const entry: Entry = { stored, source: sourceOf(stored, host), checkedAtMs: nowMs }
    entries.set(text, entry)
    const [oldest] = entries.keys()
    if (entries.size > mostOpen && oldest !== undefined) drop(oldest)
    return entry.source
  }

  /** Still the file of that name, as far as we can tell. */
  const isCurrent = Effect.fnUntraced(function*(entry: Entry, nowMs: number) {
    const { checkedAtMs, stored } = entry
    // An incomplete one is likely to be replaced by the next attempt's.
    if (stored.end?.complete === true && nowMs - checkedAtMs < trustedMs) return true
    const { isNamed } = yield* stored.handle.use(stored.handle.stat())
    if (isNamed) entry.checkedAtMs = nowMs
    return isNamed
  }, Effect.catchTag("LogHandleClosed", () => Effect.succeed(false)))

  const find = Effect.fnUntraced(function*(key: JobKey, path: string) {
    const text = keyText(key)
    const nowMs = yield* monotonicMs
    const known = entries.get(text)
    if (known !== undefined) {
      if (yield* isCurrent(known, nowMs)) {
        if (entries.delete(text)) entries.set(text, known)
        return known.source
      }
      if (entries.get(text) === known) drop(text)
    }
    return add(yield* openStored(key, path), nowMs)
  })

  return {
    find,
    put: (stored) => void add(stored, 0),
    drop: (key) => drop(keyText(key)),
    close: Effect.sync(() => {
      for (const text of entries.keys()) drop(text)
    })
  }
}

/** Opens a file and proves whose it is; reads nothing else. */
const openStored = Effect.fnUntraced(function*(key: JobKey, path: string) {
  const handle = yield* openHandle(path, "r", "read").pipe(
    Effect.mapError((error) => codeOf(error.cause) === "ENOENT" ? new LogNotFound({ key }) : error)
  )
  return yield* readPreamble(handle, key).pipe(Effect.tapError(() => Effect.sync(() => handle.close())))
})

const readPreamble = Effect.fnUntraced(function*(handle: LogHandle, key: JobKey) {
  const { size } = yield* handle.stat()
  const read = decodePreamble(yield* handle.read(0, Math.min(size, mostHeadBytes)))
  // Made, and its writer died or has not come to write: nothing is kept yet.
  if (read._tag === "Short") return yield* new LogNotFound({ key })
  if (read._tag === "Damaged") return yield* damaged(handle.path)
  if (read.preamble.key !== keyText(key)) {
    return yield* new LogError({
      operation: "read",
      reason: `${handle.path} is the log of ${read.preamble.key}, not of ${keyText(key)}`,
      remedy: "Somebody moved files below the state directory: remove this one"
    })
  }
  return new StoredLog(handle, read.preamble, read.bytes)
})

const damaged = (path: string): LogError =>
  new LogError({
    operation: "read",
    reason: `${path} is no log of this version of Stoker`,
    remedy: "If no newer version wrote it, remove it: its disk or machine failed"
  })

const sourceOf = (stored: StoredLog, host: Host["Service"]): LogSource => {
  const { handle, preamble } = stored

  const refresh = stored.scanning.withPermit(
    Effect.suspend(() =>
      stored.end !== undefined ? Effect.void : Effect.flatMap(handle.stat(), ({ size }) => scan(stored, size))
    )
  )

  /** A writer of this process would have been found before this file. */
  const isWriterAlive = preamble.instance === host.instance ? Effect.succeed(false) : host.isAlive(preamble.instance)

  const takeOpen = Effect.fnUntraced(function*(range: Range): Effect.fn.Return<Omit<LogSlice, "run">, LogError> {
    yield* refresh
    const slice = yield* readStored(stored, range)
    if (slice.entries.length > 0 || slice.end !== undefined || stored.end !== undefined) return slice
    if (yield* isWriterAlive) return slice
    // Once more: it may have written its end between our look and its own end.
    yield* refresh
    yield* stored.scanning.withPermit(concludeStored(stored))
    return yield* readStored(stored, range)
  })

  return {
    identity: identityOf(preamble),
    take: (range) => handle.use(stored.end === undefined ? takeOpen(range) : readStored(stored, range)),
    subscribe: Effect.succeed(Effect.sleep(pollMs)),
    cutOff: () => ({ summaries: stored.end?.summaries ?? [], complete: false })
  }
}
