/**
 * Removes files of forgotten jobs, by what lies in the folders and not by what was to be removed: whatever ended a
 * worker between a job's row and its file, the next round finds the file. One of 256 folders with each step.
 */
import { Clock, Effect } from "effect"
import { statSync, unlinkSync } from "node:fs"
import * as fs from "node:fs/promises"
import { join } from "node:path"
import { codeOf } from "./Errno.ts"

/** Files looked at together. */
const page = 64
const folders = 256

/** Whose a file is. Nobody's may go at once; one that cannot be understood stays: it may be a newer version's. */
export type Belonging =
  | { readonly _tag: "Job"; readonly key: string }
  | { readonly _tag: "Nobody" }
  | { readonly _tag: "Unknown" }

/** What is pruned. */
export interface Prunable<E> {
  /** Has folders `00` to `ff`, and those the files. */
  readonly folder: string
  /** Whose it is, by its first bytes. */
  readonly belongsTo: (head: Buffer) => Belonging
  /** So many bytes of it are enough for that. */
  readonly headBytes: number
  /** Whether this process writes the file of that key (`keyText`) now. */
  readonly isLive: (key: string) => boolean
  readonly failed: (path: string, cause: unknown) => E
}

/** Those not written for `idleMs` whose keys `forgotten` gives back are removed; gives how many. */
export type Prune<E> = <E2>(
  idleMs: number,
  forgotten: (keys: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<string>, E2>
) => Effect.Effect<number, E | E2>

interface Idle {
  readonly path: string
  readonly writtenMs: number
  /** Absent: nobody's. */
  readonly key?: string
}

const startOf = async (path: string, bytes: number): Promise<Buffer> => {
  const file = await fs.open(path, "r")
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(bytes), 0, bytes, 0)
    return buffer.subarray(0, bytesRead)
  } finally {
    await file.close()
  }
}

/** In one go: a job of the same key may begin now, in another process. Its file is new, though its inode may not be. */
const unlinkSame = ({ path, writtenMs }: Idle): boolean => {
  if (statSync(path).mtimeMs !== writtenMs) return false
  unlinkSync(path)
  return true
}

/** Goes on where the last call ended, round and round. */
export const make = Effect.fnUntraced(function*<E>(
  { belongsTo, failed, folder, headBytes, isLive }: Prunable<E>
): Effect.fn.Return<Prune<E>> {
  // Workers that are restarted often would else never come to the last ones.
  let next = (yield* Clock.currentTimeMillis) % folders

  /** What it is, if it was last written before then. */
  const idleSince = async (path: string, beforeMs: number): Promise<ReadonlyArray<Idle>> => {
    const { mtimeMs } = await fs.stat(path)
    if (mtimeMs >= beforeMs) return []
    const whose = belongsTo(await startOf(path, headBytes))
    if (whose._tag === "Unknown") return []
    return [{ path, writtenMs: mtimeMs, ...(whose._tag === "Job" ? { key: whose.key } : {}) }]
  }

  /** Gone meanwhile is as good. */
  const attempt = <A>(path: string, run: () => Promise<A>, gone: A) =>
    Effect.tryPromise({ try: run, catch: (cause) => ({ cause }) }).pipe(
      Effect.catchIf(({ cause }) => codeOf(cause) === "ENOENT", () => Effect.succeed(gone)),
      Effect.mapError(({ cause }) => failed(path, cause))
    )

  return Effect.fnUntraced(function*(idleMs, forgotten) {
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
      for (const file of idle.filter(({ key }) => key === undefined || gone.has(key))) {
        if (yield* attempt(file.path, async () => unlinkSame(file), false)) removed += 1
      }
    }
    return removed
  })
})
