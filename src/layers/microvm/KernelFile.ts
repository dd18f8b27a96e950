/** Whether a file is a kernel that a VMM of this machine boots, told from its first bytes: a wrong one would say nothing at all. */
import { open } from "node:fs/promises"
import { textOf } from "../host/Errno.ts"

/** `e_machine` by Node's name of the architecture (elf(5)). */
const machines: ReadonlyMap<string, number> = new Map([["x64", 62], ["arm64", 183]])

const HEADER_BYTES = 64
const SEGMENT_BYTES = 56
const MOST_SEGMENTS = 128
const MOST_NOTES = 256 * 1024
const PT_LOAD = 1
const PT_NOTE = 4
/** XEN_ELFNOTE_PHYS32_ENTRY: where a VMM without firmware begins. */
const PVH = 18

const number = (view: DataView, at: number) => Number(view.getBigUint64(at, true))

const hasPvh = (notes: DataView) => {
  for (let at = 0; at + 12 <= notes.byteLength;) {
    const nameBytes = notes.getUint32(at, true)
    const bytes = notes.getUint32(at + 4, true)
    if (notes.getUint32(at + 8, true) === PVH && nameBytes === 4 && notes.byteLength >= at + 16) {
      if (Buffer.from(notes.buffer, notes.byteOffset + at + 12, 3).toString() === "Xen") return true
    }
    at += 12 + Math.ceil(nameBytes / 4) * 4 + Math.ceil(bytes / 4) * 4
  }
  return false
}

/** Why this is no kernel to be booted here, in words; undefined if it may be. Never fails. */
export const misfit = async (path: string, architecture: string = process.arch): Promise<string | undefined> => {
  try {
    await using file = await open(path)
    const { size } = await file.stat()
    const read = async (from: number, bytes: number) => {
      const { buffer, bytesRead } = await file.read({ buffer: Buffer.alloc(bytes), position: from })
      return new DataView(buffer.buffer, buffer.byteOffset, bytesRead)
    }
    const header = await read(0, HEADER_BYTES)
    if (header.byteLength < HEADER_BYTES || header.getUint32(0) !== 0x7f_45_4c_46 || header.getUint8(4) !== 2) {
      return `${path} is no kernel: no 64-bit ELF file (a vmlinux, not a bzImage)`
    }
    const machine = header.getUint16(18, true)
    if (machine !== machines.get(architecture)) {
      const name = [...machines].find(([, value]) => value === machine)?.[0] ?? `machine ${machine}`
      return `${path} is a kernel for ${name}, and this is ${architecture}`
    }
    const count = header.getUint16(56, true)
    if (count === 0 || count > MOST_SEGMENTS || header.getUint16(54, true) !== SEGMENT_BYTES) {
      return `${path} is corrupt: it has ${count} segments`
    }
    const segments = await read(number(header, 32), count * SEGMENT_BYTES)
    if (segments.byteLength < count * SEGMENT_BYTES) return `${path} is corrupt: it ends before its segments`
    let isPvh = architecture !== "x64"
    for (let at = 0; at < segments.byteLength; at += SEGMENT_BYTES) {
      const type = segments.getUint32(at, true)
      const from = number(segments, at + 8)
      const bytes = number(segments, at + 32)
      if (type === PT_LOAD && from + bytes > size) return `${path} is corrupt: it ends within a segment`
      if (type === PT_NOTE) isPvh ||= hasPvh(await read(from, Math.min(bytes, MOST_NOTES)))
    }
    return isPvh ? undefined : `${path} has no PVH note, by which it would be booted`
  } catch (cause) {
    return `${path} cannot be read: ${textOf(cause)}`
  }
}
