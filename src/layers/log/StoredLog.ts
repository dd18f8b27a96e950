/** A log's file as far as it is known: its two parts, what it lost, how it ended. */
import { Effect, Semaphore } from "effect"
import { crc32 } from "node:zlib"
import type { StreamSummary } from "../../schemas/JobEvent.ts"
import type { StreamName } from "../../schemas/Outcome.ts"
import type { LogEnd, LogError, LogSlice, LogStream } from "./Log.ts"
import type { LogRecord, Preamble } from "./LogFormat.ts"
import { decodeHead, decodeRecord, payloadBytes, recordHeadBytes } from "./LogFormat.ts"
import type { LogHandle } from "./LogHandle.ts"
import { LogPart, readPart } from "./LogPart.ts"
import type { Extent, Place, Range } from "./LogRun.ts"
import { assemble, offsetOf } from "./LogRun.ts"

export class StoredLog {
  readonly handle: LogHandle
  readonly preamble: Preamble
  readonly head: LogPart
  tail: LogPart | undefined
  end: LogEnd | undefined
  /** The records up to here are known. */
  position: number
  /** One scan at a time. */
  readonly scanning = Semaphore.makeUnsafe(1)
  private lost: Extent["lost"] | undefined

  /** `position` is that of the first record. */
  constructor(handle: LogHandle, preamble: Preamble, position: number) {
    this.handle = handle
    this.preamble = preamble
    this.head = new LogPart(position)
    this.position = position
  }

  /** A record that is whole in the file. */
  add(record: LogRecord): void {
    const part = this.tail ?? this.head
    const length = payloadBytes(record)
    this.position += recordHeadBytes + length
    switch (record._tag) {
      case "Bytes":
        return part.addBytes(record.stream, record.length)
      case "Place":
        return part.addPlace(record.place, length)
      case "Tail":
        this.lost = record.lost
        this.tail = new LogPart(this.position)
        return
      case "End":
        this.end = { summaries: record.summaries, complete: record.complete }
    }
  }

  /** The end of a log whose writer wrote none: what is there, and what is known to be missing. */
  conclude(crcs: Readonly<Record<StreamName, number>>): void {
    const tailFrom = { stdout: this.tailFrom("stdout"), stderr: this.tailFrom("stderr") }
    const summaryOf = (stream: StreamName): StreamSummary => {
      const producedBytes = this.producedOf(stream)
      const keptBytes = this.head.kept[stream] + Math.max(0, (this.tail?.kept[stream] ?? 0) - tailFrom[stream])
      return { stream, producedBytes, droppedBytes: producedBytes - keptBytes, crc32: crcs[stream] }
    }
    const lostOf = (stream: StreamName) => ({ from: this.head.kept[stream], to: tailFrom[stream] })
    this.end = { summaries: [summaryOf("stdout"), summaryOf("stderr")], complete: false }
    this.lost = { stdout: lostOf("stdout"), stderr: lostOf("stderr") }
  }

  /** What can be told now. A tail without an end is still being written, and not told. */
  extent(stream: LogStream): Extent {
    const produced = (name: StreamName) => this.end?.summaries.find((summary) => summary.stream === name)?.producedBytes
    const limit: Place = this.end === undefined
      ? stream === "all" ? this.head.firstHole ?? this.head.place : this.head.kept
      : { stdout: produced("stdout") ?? 0, stderr: produced("stderr") ?? 0 }
    const none = { from: limit.stdout, to: limit.stdout }
    return {
      limit,
      lost: this.lost ?? { stdout: none, stderr: { from: limit.stderr, to: limit.stderr } },
      headEnd: this.head.bytesEnd
    }
  }

  private producedOf(stream: StreamName): number {
    const { head, lost, tail } = this
    return Math.max(head.place[stream], tail?.place[stream] ?? 0, lost?.[stream].to ?? 0)
  }

  /** Where the tail of a stream begins, or would. */
  private tailFrom(stream: StreamName): number {
    const hasTail = (this.tail?.kept[stream] ?? 0) > 0
    return hasTail ? this.lost?.[stream].to ?? 0 : this.producedOf(stream)
  }
}

/** Reads what the file has from `range.offset` on; the slice says the end when there is one and it was reached. */
export const readStored = Effect.fnUntraced(function*(
  stored: StoredLog,
  range: Range
): Effect.fn.Return<Omit<LogSlice, "run">, LogError> {
  const { maxBytes, offset, stream } = range
  const end = stored.end
  const extent = stored.extent(stream)
  const runs = yield* readPart(stored.head, stored.handle, stream, offset, maxBytes)
  if (end !== undefined && stored.tail !== undefined) {
    runs.push(...yield* readPart(stored.tail, stored.handle, stream, offset, maxBytes))
  }
  const slice = assemble(range, runs, extent)
  return end === undefined || slice.next < offsetOf(extent.limit, stream) ? slice : { ...slice, end }
})

const smallWindow = 512
const largeWindow = 64 * 1024

/**
 * Takes in the records that are whole in a file of `size` bytes. Bytes are passed over, so that a log of large writes
 * costs a read of 512 bytes for each, and one of small writes is read as it lies.
 */
export const scan = Effect.fnUntraced(function*(stored: StoredLog, size: number): Effect.fn.Return<void, LogError> {
  let window: Buffer = Buffer.alloc(0)
  let windowAt = 0
  let wished = largeWindow
  const has = (bytes: number) => stored.position >= windowAt && stored.position + bytes <= windowAt + window.length
  while (stored.end === undefined && stored.position + recordHeadBytes <= size) {
    if (!has(Math.min(64, size - stored.position))) {
      windowAt = stored.position
      window = yield* stored.handle.read(windowAt, Math.min(size - windowAt, wished))
    }
    const position = stored.position - windowAt
    const head = decodeHead(window, position)
    // Cut off by a crash, or being written now.
    if (head === undefined || stored.position + recordHeadBytes + head.length > size) return
    wished = head.length > largeWindow / 8 ? smallWindow : largeWindow
    stored.add(decodeRecord(head, window, position + recordHeadBytes))
  }
})

const checkBytes = 256 * 1024

const crcOf = Effect.fnUntraced(function*(stored: StoredLog, stream: StreamName) {
  let crc = 0
  for (const part of stored.tail === undefined ? [stored.head] : [stored.head, stored.tail]) {
    let offset = 0
    while (offset < part.kept[stream]) {
      for (const run of yield* readPart(part, stored.handle, stream, offset, checkBytes)) {
        crc = crc32(run.bytes, crc)
        offset = run.at + run.bytes.length
      }
    }
  }
  return crc
})

/** Writes the end that the dead writer could not write, in memory only: every reader finds the same. */
export const concludeStored = Effect.fnUntraced(function*(stored: StoredLog): Effect.fn.Return<void, LogError> {
  const stdout = yield* crcOf(stored, "stdout")
  const stderr = yield* crcOf(stored, "stderr")
  if (stored.end === undefined) stored.conclude({ stdout, stderr })
})
