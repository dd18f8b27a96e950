/**
 * The file of one job's log. Format 1, frozen: other versions of Stoker read it.
 *
 *     file     = "stoklog1" (8 bytes), length (u32), preamble (so many bytes of JSON, see Preamble), record*
 *     record   = head (u32: kind in the upper 4 bits, length of the payload in the lower 28), payload
 *
 *     kind 1   stdout bytes     kind 2   stderr bytes
 *     kind 3   place            stdout, stderr (u64 each): so many bytes of each stream had been produced when what
 *                               follows arrived. What was passed over lies in the tail part, or is lost.
 *     kind 4   tail             begins the tail part. Lost bytes: stdout from, to, stderr from, to (u64 each)
 *     kind 5   end              complete (u32: 1 or 0), then for stdout and for stderr: produced (u64), dropped (u64),
 *                               CRC-32 of the kept bytes (u32). The last record of a file.
 *
 * All integers are little-endian. Records are in order of arrival within a part; a stream's bytes lie in the head part
 * up to half of what is kept, then in the tail part. Kind 0 is never written, so blocks of zeros left by a crashed
 * machine are not mistaken for records. A program that writes single bytes to both streams in turn makes the file five
 * times its output, at worst; everybody else pays 4 bytes for a write.
 */
import { Result, Schema } from "effect"
import { InstanceId } from "../../schemas/Ids.ts"
import type { StreamSummary } from "../../schemas/JobEvent.ts"
import type { StreamName } from "../../schemas/Outcome.ts"
import type { Extent, Place } from "./LogRun.ts"

export const magic = "stoklog1"
export const recordHeadBytes = 4
/** More is cut into several records. */
export const mostPayloadBytes = 0x0fff_ffff
/** No preamble is longer: it holds one key and a few numbers. */
export const mostPreambleBytes = 4096

/** Whose log it is, so that a reader can prove it, and who writes it, so that a reader can ask whether he still lives. */
export const Preamble = Schema.Struct({
  key: Schema.String,
  attempt: Schema.Natural,
  instance: InstanceId,
  /** Tells the logs of one instance apart. */
  serial: Schema.Natural,
  keepBytes: Schema.Natural
})
export type Preamble = typeof Preamble.Type

export const PreambleJson = Schema.fromJsonString(Preamble)

/** The same for two readers exactly if they see the same log, and not one that replaced it. */
export const identityOf = (preamble: Preamble): string =>
  `${preamble.key}#${preamble.attempt}#${preamble.instance}#${preamble.serial}`

export type LogRecord =
  | { readonly _tag: "Bytes"; readonly stream: StreamName; readonly length: number }
  | { readonly _tag: "Place"; readonly place: Place }
  | { readonly _tag: "Tail"; readonly lost: Extent["lost"] }
  | { readonly _tag: "End"; readonly complete: boolean; readonly summaries: ReadonlyArray<StreamSummary> }

const kinds = { stdout: 1, stderr: 2, place: 3, tail: 4, end: 5 } as const
const placeBytes = 16
const tailBytes = 32
const endBytes = 44

const headOf = (kind: number, length: number): number => ((kind << 28) | length) >>> 0

/** Of a record, without its head. */
export const payloadBytes = (record: LogRecord): number => {
  switch (record._tag) {
    case "Bytes":
      return record.length
    case "Place":
      return placeBytes
    case "Tail":
      return tailBytes
    case "End":
      return endBytes
  }
}

export const writeBytesHead = (target: Buffer, position: number, stream: StreamName, length: number): void => {
  target.writeUInt32LE(headOf(kinds[stream], length), position)
}

const record = (kind: number, length: number, offsets: ReadonlyArray<number>): Buffer => {
  const bytes = Buffer.alloc(recordHeadBytes + length)
  bytes.writeUInt32LE(headOf(kind, length))
  offsets.forEach((offset, index) => bytes.writeBigUInt64LE(BigInt(offset), recordHeadBytes + 8 * index))
  return bytes
}

export const encodePlace = (place: Place): Buffer => record(kinds.place, placeBytes, [place.stdout, place.stderr])

export const encodeTail = ({ stderr, stdout }: Extent["lost"]): Buffer =>
  record(kinds.tail, tailBytes, [stdout.from, stdout.to, stderr.from, stderr.to])

export const encodeEnd = (complete: boolean, summaries: ReadonlyArray<StreamSummary>): Buffer => {
  const bytes = record(kinds.end, endBytes, [])
  bytes.writeUInt32LE(complete ? 1 : 0, recordHeadBytes)
  for (const { crc32, droppedBytes, producedBytes, stream } of summaries) {
    const position = recordHeadBytes + 4 + (stream === "stdout" ? 0 : 20)
    bytes.writeBigUInt64LE(BigInt(producedBytes), position)
    bytes.writeBigUInt64LE(BigInt(droppedBytes), position + 8)
    bytes.writeUInt32LE(crc32, position + 16)
  }
  return bytes
}

export const encodePreamble = (preamble: Preamble): Buffer => {
  const json = Buffer.from(JSON.stringify(preamble))
  const bytes = Buffer.alloc(magic.length + 4 + json.length)
  bytes.write(magic, "latin1")
  bytes.writeUInt32LE(json.length, magic.length)
  json.copy(bytes, magic.length + 4)
  return bytes
}

const decodeJson = Schema.decodeUnknownResult(PreambleJson)

/** Bytes of a file's beginning that are enough for any preamble. */
export const mostHeadBytes = magic.length + 4 + mostPreambleBytes

/**
 * From the beginning of a file. `Short`: its writer has not come to write it (yet). `Damaged`: it is no log of this
 * version.
 */
export const decodePreamble = (
  start: Buffer
):
  | { readonly _tag: "Whole"; readonly preamble: Preamble; readonly bytes: number }
  | { readonly _tag: "Short" }
  | { readonly _tag: "Damaged" } =>
{
  const head = magic.length + 4
  if (start.length < head) return { _tag: "Short" }
  const length = start.readUInt32LE(magic.length)
  if (start.toString("latin1", 0, magic.length) !== magic || length > mostPreambleBytes) return { _tag: "Damaged" }
  if (start.length < head + length) return { _tag: "Short" }
  const preamble = decodeJson(start.toString("utf8", head, head + length))
  if (Result.isFailure(preamble)) return { _tag: "Damaged" }
  return { _tag: "Whole", preamble: preamble.success, bytes: head + length }
}

/** What a record's head says: how long its payload is, and of which stream if it is bytes. */
export interface RecordHead {
  readonly kind: "bytes" | "place" | "tail" | "end"
  readonly stream: StreamName
  readonly length: number
}

/** Undefined when it is no head of ours: the file is damaged from here on. */
export const decodeHead = (window: Buffer, position: number): RecordHead | undefined => {
  const head = window.readUInt32LE(position)
  const length = head & mostPayloadBytes
  switch (head >>> 28) {
    case kinds.stdout:
      return { kind: "bytes", stream: "stdout", length }
    case kinds.stderr:
      return { kind: "bytes", stream: "stderr", length }
    case kinds.place:
      return length === placeBytes ? { kind: "place", stream: "stdout", length } : undefined
    case kinds.tail:
      return length === tailBytes ? { kind: "tail", stream: "stdout", length } : undefined
    case kinds.end:
      return length === endBytes ? { kind: "end", stream: "stdout", length } : undefined
    default:
      return undefined
  }
}

const offsetAt = (window: Buffer, position: number): number => Number(window.readBigUInt64LE(position))

export const decodePlace = (window: Buffer, position: number): Place => ({
  stdout: offsetAt(window, position),
  stderr: offsetAt(window, position + 8)
})

const summaryAt = (window: Buffer, position: number, stream: StreamName): StreamSummary => ({
  stream,
  producedBytes: offsetAt(window, position),
  droppedBytes: offsetAt(window, position + 8),
  crc32: window.readUInt32LE(position + 16)
})

/** A whole record, its payload at `position`. */
export const decodeRecord = (head: RecordHead, window: Buffer, position: number): LogRecord => {
  switch (head.kind) {
    case "bytes":
      return { _tag: "Bytes", stream: head.stream, length: head.length }
    case "place":
      return { _tag: "Place", place: decodePlace(window, position) }
    case "tail":
      return {
        _tag: "Tail",
        lost: {
          stdout: { from: offsetAt(window, position), to: offsetAt(window, position + 8) },
          stderr: { from: offsetAt(window, position + 16), to: offsetAt(window, position + 24) }
        }
      }
    case "end":
      return {
        _tag: "End",
        complete: window.readUInt32LE(position) === 1,
        summaries: [summaryAt(window, position + 4, "stdout"), summaryAt(window, position + 24, "stderr")]
      }
  }
}
