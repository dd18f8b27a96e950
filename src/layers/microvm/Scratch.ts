/** Fresh disks for machines: made once for each size, then copied, which takes a tenth of the time. */
import { Effect, Schema, Semaphore } from "effect"
import * as fs from "node:fs/promises"
import { join } from "node:path"
import { textOf } from "../host/Errno.ts"
import * as SparseFile from "./SparseFile.ts"

const MiB = 1024 * 1024

/** ext4's, of each file or directory. */
const INODE_BYTES = 256
/** The machine's own directories on it, and its logs. */
const OWN_INODES = 512
const OWN_BYTES = 8 * MiB

/** More is not read through to find its holes. */
export const MOST_BYTES = 16 * 1024 * MiB
/** What an empty file system has in it, at most; usual are some hundred KiB. */
const MOST_CONTENT = 64 * MiB
/** No journal: it lives for one job. */
const OPTIONS = [
  "-q",
  "-F",
  "-t",
  "ext4",
  "-L",
  "scratch",
  "-m",
  "0",
  "-b",
  "4096",
  "-O",
  "^has_journal,^resize_inode",
  "-E",
  "lazy_itable_init=1,nodiscard",
  "-I",
  String(INODE_BYTES)
]

/** Sizes whose disks are kept in memory. */
const KEPT = 8

/** A disk could not be made: why, and what to do. */
export class ScratchError extends Schema.TaggedError<ScratchError>()("ScratchError", {
  reason: Schema.String,
  remedy: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    return `${this.reason}. ${this.remedy}`
  }
}

export interface Disk {
  readonly bytes: number
  readonly inodes: number
}

/** The whole device, so that a workspace has its size with all that the file system needs for itself. */
export const deviceBytes = ({ bytes, inodes }: Disk): number => {
  const tables = (inodes + OWN_INODES) * INODE_BYTES
  return Math.ceil((bytes * 1.02 + tables + OWN_BYTES) / MiB) * MiB
}

export interface ScratchOptions {
  /** Where one is made for the first time; its file is removed at once. */
  readonly folder: string
  /** Runs a program to its end; fails with what it said. */
  readonly run: (argv: readonly [string, ...ReadonlyArray<string>]) => Effect.Effect<unknown, ScratchError>
}

/** Disks of this worker. */
export const make = ({ folder, run }: ScratchOptions) => {
  const known = new Map<string, SparseFile.SparseFile>()
  const turn = Semaphore.makeUnsafe(1)
  let made = 0

  const failed = (cause: unknown) =>
    new ScratchError({
      reason: `a machine's disk could not be made: ${textOf(cause)}`,
      remedy: "Is the state directory writable and not full?",
      cause
    })
  const attempt = <A>(run: () => Promise<A>) => Effect.tryPromise({ try: run, catch: failed })

  const format = Effect.fnUntraced(function*(disk: Disk) {
    const path = join(folder, `scratch-${++made}.img`)
    return yield* Effect.gen(function*() {
      yield* attempt(() => fs.mkdir(folder, { recursive: true, mode: 0o711 }))
      yield* run([
        "mke2fs",
        ...OPTIONS,
        "-N",
        String(disk.inodes + OWN_INODES),
        path,
        `${deviceBytes(disk) / 1024}k`
      ])
      const found = yield* attempt(() => SparseFile.load(path, MOST_CONTENT))
      return found ?? (yield* new ScratchError({
        reason: `an empty disk of ${disk.bytes} bytes and ${disk.inodes} inodes is not empty enough`,
        remedy: "Lower diskInodes."
      }))
    }).pipe(Effect.ensuring(Effect.promise(() => fs.rm(path, { force: true }))))
  })

  /** An empty one of this size, to be written wherever it is needed. */
  const of = (disk: Disk) =>
    Effect.gen(function*() {
      const key = `${disk.bytes} ${disk.inodes}`
      const found = known.get(key) ?? (yield* format(disk))
      known.delete(key)
      known.set(key, found)
      const [oldest] = known.keys()
      if (known.size > KEPT && oldest !== undefined) known.delete(oldest)
      return found
    }).pipe(Semaphore.withPermits(turn, 1))

  return {
    of,
    write: (file: SparseFile.SparseFile, path: string, owner: { readonly uid: number; readonly gid: number }) =>
      attempt(() => SparseFile.write(file, path, owner))
  }
}
export type Scratch = ReturnType<typeof make>
