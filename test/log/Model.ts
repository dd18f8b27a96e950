/** What a log should hold, in the simplest possible way, and a reader that checks every byte it is given. */
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import { crc32 } from "node:zlib"
import type { LogEnd, LogEntry, LogStream } from "../../src/layers/log/Log.ts"
import { Log } from "../../src/layers/log/Log.ts"
import type { JobKey } from "../../src/schemas/Ids.ts"
import { IntakeName, JobId, Owner } from "../../src/schemas/Ids.ts"
import type { StreamName } from "../../src/schemas/Outcome.ts"

export const key = (id: string): JobKey => ({
  intake: IntakeName.make("embedded"),
  owner: Owner.make("local"),
  id: JobId.make(id)
})

export const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)
export const text = (entries: ReadonlyArray<LogEntry>): string =>
  Buffer.concat(entries.map((entry) => entry._tag === "Bytes" ? entry.bytes : Buffer.alloc(0))).toString()

/** The same numbers for the same seed (mulberry32). */
export const numbers = (seed: number) => {
  let state = seed
  return (below: number): number => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below
  }
}

export class Model {
  readonly keepBytes: number
  private readonly produced: Record<LogStream, Array<number>> = { stdout: [], stderr: [], all: [] }
  private readonly streamOf: Array<StreamName> = []

  constructor(keepBytes: number) {
    this.keepBytes = keepBytes
  }

  append(stream: StreamName, bytes: Uint8Array): void {
    for (const byte of bytes) {
      this.produced[stream].push(byte)
      this.produced.all.push(byte)
      this.streamOf.push(stream)
    }
  }

  length(stream: LogStream): number {
    return this.produced[stream].length
  }

  /** The bytes that must be kept of a stream: all, or the first and the last half. */
  kept(stream: StreamName): Buffer {
    const all = Buffer.from(this.produced[stream])
    if (all.length <= this.keepBytes) return all
    const tail = Math.floor(this.keepBytes / 2)
    return Buffer.concat([all.subarray(0, this.keepBytes - tail), all.subarray(all.length - tail)])
  }

  crc(stream: StreamName): number {
    return crc32(this.kept(stream))
  }

  /** An entry must begin at `offset` and say nothing but the truth. Gives the offset behind it. */
  check(asked: LogStream, offset: number, entry: LogEntry): number {
    if (entry._tag === "Gap") {
      assert.strictEqual(entry.from, offset)
      assert.isAbove(entry.to, entry.from)
      if (asked !== "all") assert.strictEqual(entry.stream, asked)
      return entry.to
    }
    assert.strictEqual(entry.offset, offset)
    const end = offset + entry.bytes.length
    assert.strictEqual(
      Buffer.from(this.produced[asked].slice(offset, end)).compare(entry.bytes),
      0,
      `wrong bytes of ${asked} at ${offset}`
    )
    const streams = new Set(asked === "all" ? this.streamOf.slice(offset, end) : [asked])
    assert.deepStrictEqual([...streams], [entry.stream])
    return end
  }
}

/** What a reader has got so far: the number of bytes and gaps of each stream. */
export interface Got {
  readonly bytes: Record<StreamName, number>
  readonly gaps: Record<StreamName, number>
  readonly end: LogEnd
}

/** Reads from the beginning to the end of a log that grows or has ended, checking it against what was produced. */
export const followAll = Effect.fnUntraced(function*(
  model: Model,
  job: JobKey,
  stream: LogStream,
  maxBytes: () => number
) {
  const log = yield* Log
  const got = { bytes: { stdout: 0, stderr: 0 }, gaps: { stdout: 0, stderr: 0 } }
  let offset = 0
  while (true) {
    const most = maxBytes()
    const slice = yield* log.read(job, { stream, offset, maxBytes: most, waitMs: 600_000 })
    let given = 0
    for (const entry of slice.entries) {
      const next = model.check(stream, offset, entry)
      got[entry._tag === "Bytes" ? "bytes" : "gaps"][entry.stream] += next - offset
      if (entry._tag === "Bytes") given += next - offset
      offset = next
    }
    assert.isAtMost(given, most)
    assert.strictEqual(slice.next, offset)
    assert.isAtLeast(slice.available, offset)
    if (slice.end !== undefined) assert.strictEqual(slice.available, offset)
    if (slice.end !== undefined) return { ...got, end: slice.end } satisfies Got
  }
})
