/** Fresh disks for machines: made once for each size, then copied, which takes a tenth of the time. */
import { Effect, Schema, Semaphore } from "effect"
import * as fs from "node:fs/promises"
import { join } from "node:path"
import { textOf } from "../host/Errno.ts"
import * as SparseFile from "./SparseFile.ts"

const MiB = 1024 * 1024

/** ext4's, of each file or directory. */
const INODE_BYTES = 256
/** Of a block of the file system, in bytes. */
const BLOCK = 4096
/** Room for what the file system rounds up, before the rest is taken away from jobs. */
const SPARE_INODES = 64
const SPARE_BYTES = MiB
/** Of making one that is too large or too small by a little less each time. */
const ROUNDS = 5
/** The directories that a machine's init and its overlay make. */
const INIT_INODES = 8
/** Of the root alone, so that no job gets more inodes than it may have. */
const REST = "rest"

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
  "-b",
  String(BLOCK),
  "-O",
  "^has_journal,^resize_inode",
  "-E",
  "lazy_itable_init=1,nodiscard",
  "-I",
  String(INODE_BYTES),
  "-m",
  "0"
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

/** About the whole device, so that a workspace has its size with all that the file system needs for itself. */
const deviceBytes = ({ bytes, inodes }: Disk): number => {
  const tables = (inodes + SPARE_INODES) * INODE_BYTES
  return Math.ceil((bytes * 1.02 + tables + SPARE_BYTES) / MiB) * MiB
}

/** Free ones, so that a job has its bytes: Linux keeps a fiftieth, and 4096 at most, for itself (`ext4_calculate_resv_clusters`). */
const wantedBlocks = ({ bytes }: Disk, blocks: number) =>
  Math.ceil(bytes / BLOCK) + Math.min(4096, Math.floor(blocks / 50))

/** Of an ext4's superblock (ext4 disk layout, "The Super Block"). */
const countsOf = async (path: string) => {
  await using file = await fs.open(path)
  const { buffer } = await file.read({ buffer: Buffer.alloc(1024), position: 1024 })
  return { blocks: buffer.readUInt32LE(4), freeBlocks: buffer.readUInt32LE(12), freeInodes: buffer.readUInt32LE(16) }
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

  /** With `rest` empty files and `over` blocks that are full already, in a directory of the root's. */
  const makeIn = Effect.fnUntraced(function*(path: string, inodes: number, blocks: number, rest: number, over: number) {
    const filled = `${path}.files`
    yield* attempt(async () => {
      await fs.rm(filled, { recursive: true, force: true })
      await fs.mkdir(join(filled, REST), { recursive: true, mode: 0o700 })
      for (let n = 0; n < rest; n++) await fs.writeFile(join(filled, REST, `${n}`), "")
      if (over > 0) await fs.writeFile(join(filled, REST, "blocks"), Buffer.alloc(over * BLOCK, 1))
      // What is there already keeps the size that it has.
      await fs.rm(path, { force: true })
    })
    yield* run(["mke2fs", ...OPTIONS, "-N", `${inodes}`, "-d", filled, path, `${blocks * BLOCK / 1024}k`])
    return yield* attempt(() => countsOf(path))
  })

  // A machine's root writes files of jobs too, and no reserve holds it: there are no more blocks and inodes than there may be.
  const format = Effect.fnUntraced(function*(disk: Disk) {
    const path = join(folder, `scratch-${++made}.img`)
    return yield* Effect.gen(function*() {
      yield* attempt(() => fs.mkdir(folder, { recursive: true, mode: 0o711 }))
      const make = (blocks: number, rest: number, over: number) =>
        makeIn(path, disk.inodes + SPARE_INODES, blocks, rest, over)
      let [blocks, rest] = [deviceBytes(disk) / BLOCK, 0]
      let last = yield* make(blocks, rest, 0)
      const more = () => last.freeInodes - INIT_INODES - disk.inodes
      const over = () => last.freeBlocks - wantedBlocks(disk, last.blocks)
      for (let round = 1; round < ROUNDS && (more() !== 0 || over() !== 0); round++) {
        rest = Math.max(0, rest + more())
        blocks -= over()
        last = yield* make(blocks, rest, 0)
      }
      // What is over all the same is filled, by a file that is one of those that take inodes.
      if (over() > 0) last = yield* make(blocks, Math.max(0, rest - 1), over())
      if (over() < 0 || more() < 0) {
        return yield* new ScratchError({
          reason: `mke2fs made no file system with ${disk.bytes} bytes and ${disk.inodes} inodes for jobs`,
          remedy: "Ask for another size of disk; this one should have worked, so please report it."
        })
      }
      const found = yield* attempt(() => SparseFile.load(path, MOST_CONTENT))
      return found ?? (yield* new ScratchError({
        reason: `an empty disk of ${disk.bytes} bytes and ${disk.inodes} inodes is not empty enough`,
        remedy: "Lower diskInodes."
      }))
    }).pipe(Effect.ensuring(Effect.promise(async () => {
      await fs.rm(path, { force: true })
      await fs.rm(`${path}.files`, { recursive: true, force: true })
    })))
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
