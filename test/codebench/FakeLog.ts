/** A log that holds what a test says, gaps included. */
import { Effect, Layer } from "effect"
import { Log, type LogEntry, LogError, LogNotFound } from "../../src/layers/log/Log.ts"
import type { StreamName } from "../../src/schemas/Outcome.ts"

/** Text that was kept, or the length of what was not. */
export type Written = ReadonlyArray<string | number>

const entriesOf = (stream: StreamName, written: Written): ReadonlyArray<LogEntry> => {
  let offset = 0
  return written.map((piece): LogEntry => {
    const from = offset
    if (typeof piece === "number") {
      offset += piece
      return { _tag: "Gap", stream, from, to: offset }
    }
    const bytes = new TextEncoder().encode(piece)
    offset += bytes.byteLength
    return { _tag: "Bytes", stream, offset: from, bytes }
  })
}

const endOf = (entry: LogEntry) => entry._tag === "Gap" ? entry.to : entry.offset + entry.bytes.byteLength

/** Gives one entry per read, at most `chunk` bytes of it. */
export const layer = (
  output: Partial<Record<StreamName, Written>> | "absent" | "broken",
  chunk = 5
): Layer.Layer<Log> =>
  Layer.mock(Log)({
    read: (key, { maxBytes, offset, stream }) => {
      if (output === "absent") return Effect.fail(new LogNotFound({ key }))
      if (output === "broken") {
        return Effect.fail(new LogError({ operation: "read", reason: "the disk is gone", remedy: "Find it." }))
      }
      const name = stream === "all" ? "stdout" : stream
      const entry = entriesOf(name, output[name] ?? []).find((entry) => endOf(entry) > offset)
      if (entry === undefined) {
        return Effect.succeed({
          entries: [],
          next: offset,
          available: offset,
          run: "fake",
          end: { summaries: [], complete: true }
        })
      }
      if (entry._tag === "Gap") {
        return Effect.succeed({
          entries: [{ ...entry, from: offset }],
          next: entry.to,
          available: entry.to,
          run: "fake"
        })
      }
      const bytes = entry.bytes.subarray(offset - entry.offset).subarray(0, Math.min(chunk, maxBytes))
      const next = offset + bytes.byteLength
      return Effect.succeed({ entries: [{ ...entry, offset, bytes }], next, available: next, run: "fake" })
    }
  })
