/** One part of a log's file, head or tail, and the way from an offset to its bytes. */
import { Effect } from "effect"
import type { StreamName } from "../../schemas/Outcome.ts"
import type { LogError, LogStream } from "./Log.ts"
import { decodeHead, decodePlace, recordHeadBytes } from "./LogFormat.ts"
import type { LogHandle } from "./LogHandle.ts"
import type { Place, Run } from "./LogRun.ts"
import { advance, offsetOf, start } from "./LogRun.ts"

/** A spot in the file, within a record of which `left` bytes are still to come, or before a record's head. */
interface Cursor {
  readonly position: number
  readonly place: Place
  readonly stream: StreamName
  readonly left: number
}

/** One mark for so many bytes of file: what is read in vain to get from a mark to an offset stays below. */
const markEvery = 64 * 1024
/** Where the last readers stopped, which is where they will go on. */
const mostRecent = 64
const leastWindow = 4096
const mostWindow = 256 * 1024

/** A sparse index: grows with the file, record by record. */
export class LogPart {
  private readonly marks: Array<Cursor> = []
  private readonly recent = new Map<string, Cursor>()
  private position: number
  /** Behind the last record. */
  place: Place = start
  /** Behind the last byte. */
  bytesEnd: Place = start
  /** Kept bytes end here, as an offset of each reader's stream; 0 if there is none. */
  readonly kept = { stdout: 0, stderr: 0, all: 0 }
  /** The first place where bytes were passed over. */
  firstHole: Place | undefined

  /** `position` is the file's, of the first record. */
  constructor(position: number) {
    this.position = position
  }

  get end(): number {
    return this.position
  }

  addBytes(stream: StreamName, length: number): void {
    const last = this.marks.at(-1)
    if (last === undefined || this.position - last.position >= markEvery) this.marks.push(this.cursor())
    this.position += recordHeadBytes + length
    this.place = advance(this.place, stream, length)
    this.bytesEnd = this.place
    this.kept[stream] = this.place[stream]
    this.kept.all = this.place.stdout + this.place.stderr
  }

  addPlace(place: Place, length: number): void {
    this.firstHole ??= this.place
    this.position += recordHeadBytes + length
    this.place = place
  }

  /** The last known cursor from which `offset` can be reached going forward. */
  find(stream: LogStream, offset: number): Cursor {
    const recent = this.recent.get(`${stream}${offset}`)
    if (recent !== undefined) return recent
    let low = 0
    let high = this.marks.length - 1
    while (low < high) {
      const middle = (low + high + 1) >>> 1
      if (offsetOf(this.marks[middle]?.place ?? start, stream) <= offset) low = middle
      else high = middle - 1
    }
    return this.marks[low] ?? this.cursor()
  }

  remember(stream: LogStream, offset: number, cursor: Cursor): void {
    const oldest = this.recent.keys().next()
    if (this.recent.size >= mostRecent && oldest.done !== true) this.recent.delete(oldest.value)
    this.recent.set(`${stream}${offset}`, cursor)
  }

  private cursor(): Cursor {
    return { position: this.position, place: this.place, stream: "stdout", left: 0 }
  }
}

/** The first `maxBytes` kept bytes of the part from `offset` on. They point into what was read, without a copy. */
export const readPart = Effect.fnUntraced(function*(
  part: LogPart,
  handle: LogHandle,
  stream: LogStream,
  offset: number,
  maxBytes: number
): Effect.fn.Return<Array<Run>, LogError> {
  const runs: Array<Run> = []
  if (offset >= part.kept[stream]) return runs
  const end = part.end
  let { left, place, position, stream: current } = part.find(stream, offset)
  let window: Buffer = Buffer.alloc(0)
  let windowAt = position
  let budget = Math.max(1, maxBytes)
  const has = (bytes: number) => position >= windowAt && position + bytes <= windowAt + window.length
  const pass = (bytes: number) => {
    position += bytes
    left -= bytes
    place = advance(place, current, bytes)
  }
  while (budget > 0 && (left > 0 || position < end)) {
    const begin = stream === "all" ? place.stdout + place.stderr : place[current]
    const unwanted = left === 0
      ? 0
      : stream !== "all" && stream !== current
      ? left
      : Math.min(left, Math.max(0, offset - begin))
    if (unwanted > 0) {
      pass(unwanted)
      continue
    }
    if (!has(left > 0 ? 1 : Math.min(end - position, 20))) {
      const wished = Math.min(mostWindow, Math.max(leastWindow, budget + 64))
      window = yield* handle.read(position, Math.min(end - position, wished))
      windowAt = position
    }
    if (left > 0) {
      const from = position - windowAt
      const bytes = window.subarray(from, from + Math.min(left, budget))
      runs.push({ stream: current, at: place[current], all: place.stdout + place.stderr, bytes })
      budget -= bytes.length
      pass(bytes.length)
      continue
    }
    const head = decodeHead(window, position - windowAt)
    position += recordHeadBytes
    if (head?.kind === "bytes") {
      current = head.stream
      left = head.length
    } else {
      // Only these two kinds lie within a part, and both were understood when the part was indexed.
      if (head?.kind === "place") place = decodePlace(window, position - windowAt)
      position += head?.length ?? 0
    }
  }
  const last = runs.at(-1)
  if (last !== undefined) {
    const next = (stream === "all" ? last.all : last.at) + last.bytes.length
    part.remember(stream, next, { position, place, stream: current, left })
  }
  return runs
})
