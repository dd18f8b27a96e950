/**
 * The file of one job's artefacts: whose it is, the contents one behind the other, and a list of them at its end. So a
 * job names nothing in the state directory, and what belongs together is there as a whole or not at all.
 */
import { Option, Schema } from "effect"
import { crc32 } from "node:zlib"
import { Artefact } from "../../schemas/JobEvent.ts"

const magic = Buffer.from("STOKART1")

/** Enough for the longest key. Bytes. */
export const mostHeadBytes = 1024
/** Place and length of the list, its CRC-32, and the magic again. */
export const tailBytes = 24

/** An artefact and where its contents begin. */
export const Entry = Schema.Struct({ ...Artefact.fields, at: Schema.Natural })
export type Entry = typeof Entry.Type

const Entries = Schema.fromJsonString(Schema.Array(Entry))
const decodeEntries = Schema.decodeUnknownOption(Entries)

/** `key` as `keyText` has it. */
export const encodeHead = (key: string): Buffer => {
  const name = Buffer.from(key, "utf8")
  const head = Buffer.alloc(magic.length + 2 + name.length)
  magic.copy(head)
  head.writeUInt16LE(name.length, magic.length)
  name.copy(head, magic.length + 2)
  return head
}

/** The key; nothing if the bytes do not begin as such a file does. */
export const decodeHead = (head: Buffer): string | undefined => {
  const at = magic.length + 2
  if (head.length < at || !head.subarray(0, magic.length).equals(magic)) return undefined
  const length = head.readUInt16LE(magic.length)
  return head.length < at + length ? undefined : head.toString("utf8", at, at + length)
}

/** What follows the contents, of which `at` is the end. */
export const encodeTail = (entries: ReadonlyArray<Entry>, at: number): Buffer => {
  const list = Buffer.from(JSON.stringify(entries), "utf8")
  const tail = Buffer.alloc(tailBytes)
  tail.writeBigUInt64LE(BigInt(at), 0)
  tail.writeUInt32LE(list.length, 8)
  tail.writeUInt32LE(crc32(list), 12)
  magic.copy(tail, 16)
  return Buffer.concat([list, tail])
}

/** Where the list lies in a file of `size` bytes, by its last `tailBytes`. */
export const decodeTail = (tail: Buffer, size: number) => {
  if (tail.length !== tailBytes || !tail.subarray(16).equals(magic)) return undefined
  const at = Number(tail.readBigUInt64LE(0))
  const length = tail.readUInt32LE(8)
  return at + length + tailBytes === size ? { at, length, crc: tail.readUInt32LE(12) } : undefined
}

/** The list, if it is whole. */
export const decodeList = (list: Buffer, crc: number): ReadonlyArray<Entry> | undefined =>
  crc32(list) === crc ? Option.getOrUndefined(decodeEntries(list.toString("utf8"))) : undefined
