/**
 * What successful compile phases made, kept so that the same sources of the same owner are compiled once. A convenience and
 * never more: nothing here fails, what cannot be read was never there, what cannot be written is compiled again.
 */
import { Context, Effect, type Option } from "effect"
import type { StreamName } from "../../schemas/Outcome.ts"
import type { ProgramFile } from "../../schemas/Program.ts"

/** What one compile phase came to. */
export interface Compiled {
  /** Its products, as they are put into another workspace. */
  readonly files: ReadonlyArray<ProgramFile>
  /** What it wrote (warnings), in order. */
  readonly output: ReadonlyArray<{ readonly stream: StreamName; readonly bytes: Uint8Array }>
}

/** Hex SHA-256 of all that could change what a compile phase makes, and of whom it is for (`CompileKey.ts`). */
export type CompileKey = string

/** One owner's results are never another's: the owner is part of the key. */
export interface CompileCacheService {
  /** The products of one compile phase, together, at most. 0: nothing is kept, and nobody need ask. */
  readonly mostBytes: number
  /** None also when it was damaged; then it is removed. */
  readonly get: (key: CompileKey) => Effect.Effect<Option.Option<Compiled>>
  /** Does nothing when there is no room for it, with one warning when the disk is to blame. */
  readonly put: (key: CompileKey, compiled: Compiled) => Effect.Effect<void>
}

/** Keeps nothing. */
export const off: CompileCacheService = {
  mostBytes: 0,
  get: () => Effect.succeedNone,
  put: () => Effect.void
}

/** Off unless a worker was given one. */
export const CompileCache = Context.Reference<CompileCacheService>("stoker/layers/cache/CompileCache", {
  defaultValue: () => off
})

/** They pass through the worker's memory, whatever the cache could hold. */
const MOST_BYTES = 32 * 1024 * 1024

/** The products of one compile phase, together: a quarter of the cache at most, so that one cannot push out all others. */
export const mostBytesOf = (maximumBytes: number): number => Math.min(MOST_BYTES, Math.floor(maximumBytes / 4))

/** Entries are files, and the search for the oldest looks at each: there are no more than this. */
const MOST_ENTRIES = 8192

/** A file system gives out whole blocks. */
const BLOCK = 4096

/** So many bytes on the disk. */
export const blocksOf = (bytes: number): number => Math.ceil(bytes / BLOCK) * BLOCK

/** What an entry of so many bytes counts for. */
export const chargeOf = (bytes: number, maximumBytes: number): number =>
  Math.max(blocksOf(bytes), Math.ceil(maximumBytes / MOST_ENTRIES))

/** Bytes that a result has, without what a file of it adds. */
export const sizeOf = ({ files, output }: Compiled): number =>
  files.reduce((sum, { content }) => sum + content.length, 0) + output.reduce((sum, { bytes }) => sum + bytes.length, 0)
