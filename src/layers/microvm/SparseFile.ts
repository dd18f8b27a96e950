/** Files that are mostly holes, such as fresh disks: what is in them is kept in memory, and a copy is a few writes. */
import { createHash } from "node:crypto"
import * as fs from "node:fs/promises"

/** Pieces that are looked at; a hole is found where one is all zeros. */
const PIECE = 1024 * 1024
/** What is written together. Smaller than a piece, so that copies stay as sparse as disks are. */
const GRAIN = 16 * 1024

const zeros = Buffer.alloc(PIECE)
const isZero = (bytes: Buffer) => bytes.equals(zeros.subarray(0, bytes.length))

/** Calls `see` for each piece that is not all zeros. */
const walk = async (path: string, see: (bytes: Buffer, offset: number) => void): Promise<number> => {
  await using file = await fs.open(path, "r")
  const buffer = Buffer.allocUnsafe(PIECE)
  let offset = 0
  while (true) {
    const { bytesRead } = await file.read(buffer, 0, PIECE, offset)
    if (bytesRead === 0) return offset
    const bytes = buffer.subarray(0, bytesRead)
    if (!isZero(bytes)) see(bytes, offset)
    offset += bytesRead
  }
}

export interface SparseFile {
  readonly bytes: number
  readonly pieces: ReadonlyArray<{ readonly offset: number; readonly bytes: Buffer }>
}

/** Reads one whose content fits into memory; undefined for more than `maximum` bytes of it. */
export const load = async (path: string, maximum: number): Promise<SparseFile | undefined> => {
  const pieces: Array<{ readonly offset: number; bytes: Buffer }> = []
  let size = 0
  const bytes = await walk(path, (found, at) => {
    for (let start = 0; start < found.length; start += GRAIN) {
      const grain = found.subarray(start, start + GRAIN)
      if (isZero(grain) || size > maximum) continue
      size += grain.length
      const last = pieces.at(-1)
      if (last !== undefined && last.bytes.length < PIECE && last.offset + last.bytes.length === at + start) {
        last.bytes = Buffer.concat([last.bytes, grain])
      } else {
        pieces.push({ offset: at + start, bytes: Buffer.from(grain) })
      }
    }
  })
  return size > maximum ? undefined : { bytes, pieces }
}

/** Writes a copy that must not be there yet, for its owner alone. */
export const write = async (
  { bytes, pieces }: SparseFile,
  path: string,
  owner?: { readonly uid: number; readonly gid: number }
): Promise<void> => {
  await using file = await fs.open(path, "wx", 0o600)
  await file.truncate(bytes)
  for (const piece of pieces) await file.write(piece.bytes, 0, piece.bytes.length, piece.offset)
  if (owner !== undefined) await file.chown(owner.uid, owner.gid)
}

/** SHA-256 of what is in it and where: as good as one of all its bytes, and holes cost nothing but their reading. */
export const digest = async (path: string): Promise<{ readonly bytes: number; readonly sha256: string }> => {
  const hash = createHash("sha256")
  const bytes = await walk(path, (found, offset) => {
    hash.update(`${offset} ${found.length}\n`)
    hash.update(found)
  })
  return { bytes, sha256: hash.update(`${bytes}\n`).digest("hex") }
}
