/**
 * Room in a directory that several processes fill together, without a lock. Who wants to write first says how much, as an
 * empty file with the size in its name, and only then counts what is there: entries, and what others have said. Of two who
 * come at once the later one therefore sees the earlier one's, so that together they never have more than the limit. Room is
 * taken in larger portions than one entry, because each portion looks at all entries.
 */
import { Effect } from "effect"
import * as fsSync from "node:fs"
import * as fs from "node:fs/promises"
import { join } from "node:path"
import type { InstanceId } from "../../schemas/Ids.ts"
import { attempt, fault } from "./CacheFault.ts"
import { chargeOf } from "./CompileCache.ts"

/** A part of the limit that one process may hold unused. */
const PORTION = 32

/** Entries looked at in one go. */
const PAGE = 64

const isEntry = (name: string) => /^[0-9a-f]{64}$/.test(name)

export interface RoomOptions {
  /** Entries lie in it, named by their keys. */
  readonly entries: string
  /** What is being written, and what has been said, lies in it. */
  readonly pending: string
  /** All together, by `chargeOf`. Bytes. */
  readonly maximumBytes: number
  readonly instance: InstanceId
  readonly isAlive: (instance: InstanceId) => Effect.Effect<boolean>
  /** Told after each count. Bytes. */
  readonly onCount: (bytes: number) => void
}

interface Entry {
  readonly path: string
  readonly charge: number
  readonly usedMs: number
}

/** Names are given once in this process, whichever room gives them. */
let serial = 0

/** Removes it if it is there. */
export const drop = (path: string) => Effect.promise(() => fs.unlink(path).catch(() => {}))

const roomOf = (name: string): number => Number(/\.room\.(\d+)$/.exec(name)?.[1] ?? 0)

/** What a file adds; undefined if it has gone, or is none of ours. */
const look = (path: string, maximumBytes: number): Entry | undefined => {
  const stat = fsSync.lstatSync(path, { throwIfNoEntry: false })
  return stat?.isFile() === true
    ? { path, charge: chargeOf(stat.size, maximumBytes), usedMs: stat.mtimeMs }
    : undefined
}

export const make = ({ entries, instance, isAlive, maximumBytes, onCount, pending }: RoomOptions) => {
  let held: { readonly path: string; left: number } | undefined

  /** A name in `pending` that nobody else has; its owner can be told from it. */
  const pendingPath = (ending: string) => join(pending, `${instance}.${serial++}.${ending}`)

  /** What has been said, ours too. What dead workers left is removed: first their files, then what these were counted as. */
  const said = Effect.gen(function*() {
    const names = yield* attempt("read", pending, () => fs.readdir(pending))
    const alive = new Map<string, boolean>([[instance, true]])
    let bytes = 0
    for (const name of names.toSorted((a, b) => roomOf(a) - roomOf(b))) {
      const [owner = ""] = name.split(".")
      const lives = alive.get(owner) ?? (yield* isAlive(owner as InstanceId))
      alive.set(owner, lives)
      if (lives) bytes += roomOf(name)
      else yield* drop(join(pending, name))
    }
    return bytes
  })

  const found = Effect.gen(function*() {
    const names = yield* attempt("read", entries, () => fs.readdir(entries))
    const all: Array<Entry> = []
    for (let at = 0; at < names.length; at += PAGE) {
      yield* Effect.yieldNow
      const page = names.slice(at, at + PAGE).filter(isEntry).map((name) => join(entries, name))
      const looked = yield* Effect.try({
        try: () => page.flatMap((path) => look(path, maximumBytes) ?? []),
        catch: fault("read", entries)
      })
      all.push(...looked)
    }
    return all
  })

  /** Removes entries, the least recently used first, until all fits. False: it cannot, and nothing was removed. */
  const fit = Effect.gen(function*() {
    // In this order: what becomes an entry meanwhile is counted twice, never not at all.
    const room = yield* said
    if (room > maximumBytes) return false
    const all = yield* found
    let total = all.reduce((sum, { charge }) => sum + charge, 0)
    if (room + total > maximumBytes) {
      for (const { charge, path } of all.toSorted((a, b) => a.usedMs - b.usedMs)) {
        if (room + total <= maximumBytes) break
        yield* drop(path)
        total -= charge
      }
    }
    onCount(total)
    return true
  })

  const giveBack = Effect.suspend(() => {
    if (held === undefined) return Effect.void
    const { path } = held
    held = undefined
    return drop(path)
  })

  const say = Effect.fnUntraced(function*(bytes: number) {
    yield* giveBack
    const path = pendingPath(`room.${bytes}`)
    yield* attempt("write", path, () => fs.writeFile(path, "", { flag: "wx", mode: 0o600 }))
    held = { path, left: 0 }
    if (!(yield* fit)) {
      yield* giveBack
      return false
    }
    held.left = bytes
    return true
  })

  /** One at a time. */
  const take = Effect.fnUntraced(function*(charge: number) {
    if ((held?.left ?? 0) < charge) {
      const portion = Math.max(charge, Math.floor(maximumBytes / PORTION))
      if (!(yield* say(portion))) return false
    }
    if (held !== undefined) held.left -= charge
    return true
  })

  return {
    pendingPath,
    /** Whether so much (`chargeOf`) may be written now. The least recently used goes for it. One caller at a time. */
    take,
    /** Removes what dead workers left. */
    tidy: Effect.asVoid(said),
    /** Removes what is over the limit, should it have become a smaller one. */
    trim: Effect.asVoid(fit),
    /** What was taken and not used is others' again. */
    giveBack
  }
}
