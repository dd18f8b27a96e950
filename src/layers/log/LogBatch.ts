/** What goes to a log's file in one write. */
import type { StreamName } from "../../schemas/Outcome.ts"
import type { LogRecord } from "./LogFormat.ts"
import { encodeEnd, encodePlace, encodeTail, mostPayloadBytes, recordHeadBytes, writeBytesHead } from "./LogFormat.ts"
import type { Place } from "./LogRun.ts"

const scratchBytes = 16 * 1024
/** From here on a reference and a place in the write vector are cheaper than a copy. */
const copiedBelow = 4096

/**
 * Small chunks are copied side by side, large ones are only referred to; chunks of one stream that follow each other
 * become one record.
 */
export class LogBatch {
  readonly buffers: Array<Uint8Array> = []
  readonly records: Array<LogRecord> = []
  /** Bytes of the job in it. */
  bytes = 0
  /** Before the first of the job's bytes in it. */
  first: Place | undefined
  private scratch = Buffer.alloc(0)
  /** `scratch` up to here is in `buffers` already, and up to there in use. */
  private sealed = 0
  private used = 0
  /** Where the head of the last record is written, if that record is bytes and can still grow. */
  private head: { readonly scratch: Buffer; readonly position: number; readonly stream: StreamName } | undefined

  get isEmpty(): boolean {
    return this.records.length === 0
  }

  /** `place` is the one before the chunk. */
  add(stream: StreamName, place: Place, chunk: Uint8Array): void {
    this.first ??= place
    for (let from = 0; from < chunk.length; from += mostPayloadBytes) {
      this.addRecord(stream, chunk.subarray(from, from + mostPayloadBytes))
    }
  }

  addPlace(place: Place): void {
    this.addWhole({ _tag: "Place", place }, encodePlace(place))
  }

  addTail(lost: Extract<LogRecord, { _tag: "Tail" }>["lost"]): void {
    this.addWhole({ _tag: "Tail", lost }, encodeTail(lost))
  }

  addEnd(complete: boolean, summaries: Extract<LogRecord, { _tag: "End" }>["summaries"]): void {
    this.addWhole({ _tag: "End", complete, summaries }, encodeEnd(complete, summaries))
  }

  /** All of it, in order. Nothing may be added afterwards. */
  seal(): ReadonlyArray<Uint8Array> {
    this.flushScratch()
    return this.buffers
  }

  private addRecord(stream: StreamName, chunk: Uint8Array): void {
    const last = this.records.at(-1)
    if (this.head?.stream === stream && last?._tag === "Bytes" && last.length + chunk.length <= mostPayloadBytes) {
      const length = last.length + chunk.length
      writeBytesHead(this.head.scratch, this.head.position, stream, length)
      this.records[this.records.length - 1] = { _tag: "Bytes", stream, length }
    } else {
      const position = this.reserve(recordHeadBytes)
      writeBytesHead(this.scratch, position, stream, chunk.length)
      this.head = { scratch: this.scratch, position, stream }
      this.records.push({ _tag: "Bytes", stream, length: chunk.length })
    }
    if (chunk.length < copiedBelow) this.copy(chunk)
    else {
      this.flushScratch()
      this.buffers.push(chunk)
    }
    this.bytes += chunk.length
  }

  private addWhole(record: LogRecord, bytes: Buffer): void {
    this.copy(bytes)
    this.records.push(record)
    this.head = undefined
  }

  private copy(bytes: Uint8Array): void {
    const position = this.reserve(bytes.length)
    this.scratch.set(bytes, position)
  }

  /** May change `scratch`. */
  private reserve(length: number): number {
    if (this.used + length > this.scratch.length) {
      this.flushScratch()
      this.scratch = Buffer.allocUnsafeSlow(scratchBytes)
      this.sealed = 0
      this.used = 0
    }
    const position = this.used
    this.used += length
    return position
  }

  private flushScratch(): void {
    if (this.used > this.sealed) this.buffers.push(this.scratch.subarray(this.sealed, this.used))
    this.sealed = this.used
  }
}
