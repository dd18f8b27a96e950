/**
 * Removes the logs of forgotten jobs, by what lies in the folders and not by what was to be removed: whatever ended a
 * worker between a job's row and its log, the next round finds the log. One of 256 folders with each step.
 */
import { Clock, Effect } from "effect"
import { statSync, unlinkSync } from "node:fs"
import * as fs from "node:fs/promises"
import { join } from "node:path"
import { codeOf } from "../host/Errno.ts"
import type { Log } from "./Log.ts"
import { decodePreamble, mostHeadBytes } from "./LogFormat.ts"
import { failed } from "./LogHandle.ts"

/** Files looked at together. */
const page = 64
const folders = 256

interface Idle {
  readonly path: string
  readonly writtenMs: number
  /** Absent: nothing was ever written there. */
  readonly key?: string
}

const startOf = async (path: string): Promise<Buffer> => {
  const file = await fs.open(path, "r")
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(mostHeadBytes), 0, mostHeadBytes, 0)
    return buffer.subarray(0, bytesRead)
  } finally {
    await file.close()
  }
}

/** What it is, if it was last written before then; not if it is damaged, or a newer version's: nobody knows whose it is. */
const idleSince = async (path: string, beforeMs: number): Promise<ReadonlyArray<Idle>> => {
  const { mtimeMs } = await fs.stat(path)
  if (mtimeMs >= beforeMs) return []
  const read = decodePreamble(await startOf(path))
  if (read._tag === "Damaged") return []
  return [{ path, writtenMs: mtimeMs, ...(read._tag === "Whole" ? { key: read.preamble.key } : {}) }]
}

/** In one go: a job of the same key may begin now, in another process. Its file is new, though its inode may not be. */
const unlinkSame = ({ path, writtenMs }: Idle): boolean => {
  if (statSync(path).mtimeMs !== writtenMs) return false
  unlinkSync(path)
  return true
}

/** `isLive` says whether the log of that key (`keyText`) is being written in this process. */
export const make = Effect.fnUntraced(function*(folder: string, isLive: (key: string) => boolean) {
  // Workers that are restarted often would else never come to the last ones.
  let next = (yield* Clock.currentTimeMillis) % folders

  /** Gone meanwhile is as good. */
  const attempt = <A>(path: string, run: () => Promise<A>, gone: A) =>
    Effect.tryPromise({ try: run, catch: (cause) => failed("remove", path, cause) }).pipe(
      Effect.catchIf((error) => codeOf(error.cause) === "ENOENT", () => Effect.succeed(gone))
    )

  const prune: Log["Service"]["prune"] = Effect.fn("Log.prune")(function*(idleMs, forgotten) {
    const beforeMs = (yield* Clock.currentTimeMillis) - idleMs
    const place = join(folder, Math.floor(next).toString(16).padStart(2, "0"))
    next = (next + 1) % folders
    const names = yield* attempt(place, () => fs.readdir(place), [])
    let removed = 0
    for (let from = 0; from < names.length; from += page) {
      const paths = names.slice(from, from + page).map((name) => join(place, name))
      const found = yield* Effect.forEach(
        paths,
        (path) => attempt<ReadonlyArray<Idle>>(path, () => idleSince(path, beforeMs), []),
        { concurrency: 4 }
      )
      const idle = found.flat().filter(({ key }) => key === undefined || !isLive(key))
      const gone = new Set(yield* forgotten(idle.flatMap(({ key }) => key ?? [])))
      for (const log of idle.filter(({ key }) => key === undefined || gone.has(key))) {
        if (yield* attempt(log.path, async () => unlinkSame(log), false)) removed += 1
      }
    }
    return removed
  })
  return prune
})
