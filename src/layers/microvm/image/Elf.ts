/** What an ELF file says of itself (elf(5)): just enough to refuse a kernel that no machine of ours would boot. */

/** `e_machine` by Node's name of the architecture. */
export const machines: ReadonlyMap<string, number> = new Map([["x64", 62], ["arm64", 183]])

/** Node's name of the architecture, or the number. */
export const machineName = (machine: number): string =>
  [...machines].find(([, number]) => number === machine)?.[0] ?? `machine type ${machine}`

/** Gives `length` bytes from there on, fewer at the end. */
export type ReadAt = (offset: number, length: number) => Promise<Buffer>

export const readingBuffer = (bytes: Buffer): ReadAt => async (offset, length) =>
  bytes.subarray(Math.min(offset, bytes.length), Math.min(offset + length, bytes.length))

const PT_LOAD = 1
const PT_NOTE = 4
/** The note with a kernel's 32-bit entry for VMMs (XEN_ELFNOTE_PHYS32_ENTRY): booting by it is called PVH. */
const PVH_NOTE = 18

const HEADER_BYTES = 64
/** Kernels have half a dozen, of 56 bytes. */
const MOST_SEGMENTS = 128
const MOST_NOTE_BYTES = 1024 * 1024

/** An executable of 64 bits. */
export interface Elf {
  readonly machine: number
  /** Where the last of its segments ends: a shorter file is truncated. */
  readonly end: number
  readonly hasPvhNote: boolean
}

const aligned = (length: number) => Math.ceil(length / 4) * 4

const hasPvh = (notes: Buffer): boolean => {
  for (let at = 0; at + 12 <= notes.length;) {
    const [nameLength, length, type] = [notes.readUInt32LE(at), notes.readUInt32LE(at + 4), notes.readUInt32LE(at + 8)]
    const name = notes.toString("latin1", at + 12, Math.min(at + 12 + nameLength, notes.length))
    if (type === PVH_NOTE && name === "Xen\0") return true
    at += 12 + aligned(nameLength) + aligned(length)
  }
  return false
}

/** Nothing, if it is no little-endian ELF of 64 bits with segments. */
export const inspect = async (read: ReadAt): Promise<Elf | undefined> => {
  const header = await read(0, HEADER_BYTES)
  if (header.length < HEADER_BYTES || header.readUInt32BE(0) !== 0x7f454c46) return undefined
  const [bits, order] = [header[4], header[5]]
  if (bits !== 2 || order !== 1) return undefined
  const [at, size, count] = [header.readBigUInt64LE(32), header.readUInt16LE(54), header.readUInt16LE(56)]
  if (size < 56 || count === 0 || count > MOST_SEGMENTS || at > 2n ** 40n) return undefined
  const table = await read(Number(at), size * count)
  let end = Number(at) + size * count
  let hasPvhNote = false
  for (let entry = 0; entry + size <= table.length; entry += size) {
    const type = table.readUInt32LE(entry)
    const [offset, length] = [Number(table.readBigUInt64LE(entry + 8)), Number(table.readBigUInt64LE(entry + 32))]
    if (type === PT_LOAD || type === PT_NOTE) end = Math.max(end, offset + length)
    if (type === PT_NOTE && length <= MOST_NOTE_BYTES) hasPvhNote ||= hasPvh(await read(offset, length))
  }
  return { machine: header.readUInt16LE(18), end, hasPvhNote }
}

/** The bytes of a section, by its name; nothing if it has none. Throws where the file ends too early. */
export const section = (file: Buffer, name: string): Buffer | undefined => {
  const [at, size, count, names] = [
    Number(file.readBigUInt64LE(40)),
    file.readUInt16LE(58),
    file.readUInt16LE(60),
    file.readUInt16LE(62)
  ]
  const placeOf = (index: number) => {
    const entry = at + index * size
    const offset = Number(file.readBigUInt64LE(entry + 24))
    return { name: file.readUInt32LE(entry), offset, end: offset + Number(file.readBigUInt64LE(entry + 32)) }
  }
  const strings = placeOf(names)
  for (let index = 0; index < count; index += 1) {
    const place = placeOf(index)
    const begin = strings.offset + place.name
    if (file.toString("latin1", begin, file.indexOf(0, begin)) === name) return file.subarray(place.offset, place.end)
  }
  return undefined
}
