/** One stream's output for a status message: bounded, its beginning and its end, with what is missing between. */
import { Effect } from "effect"
import type { OutputPiece } from "../../schemas/dialects/CodeBenchStatus.ts"
import type { JobKey } from "../../schemas/Ids.ts"
import type { StreamSummary } from "../../schemas/JobEvent.ts"
import type { Log } from "../log/Log.ts"

/** The produced bytes `from` to `to`. What is not there any more is a number. */
const range = Effect.fnUntraced(function*(
  log: Log["Service"],
  key: JobKey,
  stream: StreamSummary["stream"],
  from: number,
  to: number
) {
  const pieces: Array<OutputPiece> = []
  let at = from
  while (at < to) {
    const slice = yield* log.read(key, { stream, offset: at, maxBytes: to - at, waitMs: 0 })
    for (const entry of slice.entries) {
      if (entry._tag === "Bytes") pieces.push(entry.bytes.subarray(0, Math.max(0, to - entry.offset)))
      else pieces.push(Math.max(0, Math.min(entry.to, to) - Math.max(entry.from, from)))
    }
    // The log knows less than the event said: its tail was lost with a worker.
    if (slice.next <= at) break
    at = slice.next
  }
  if (at < to) pieces.push(to - at)
  return pieces
}, (read, _log, key, stream, from, to) =>
  // A status without its output is better than none.
  Effect.catchTags(read, {
    LogNotFound: () => Effect.succeed([to - from]),
    LogError: (error) =>
      Effect.as(Effect.logWarning(`${stream} of ${key.id} left out of its status: ${error.message}`), [to - from])
  }))

/** At most `maximumBytes` of what the stream produced from `from` on; a half of them from there, the other from its end. */
export const statusOutput = (
  log: Log["Service"],
  key: JobKey,
  summary: StreamSummary,
  from: number,
  maximumBytes: number
): Effect.Effect<ReadonlyArray<OutputPiece>> => {
  const { producedBytes: produced, stream } = summary
  if (produced - from <= maximumBytes) return range(log, key, stream, from, produced)
  const half = Math.floor(maximumBytes / 2)
  return Effect.zipWith(
    range(log, key, stream, from, from + half),
    range(log, key, stream, produced - half, produced),
    (head, tail) => [...head, produced - from - 2 * half, ...tail]
  )
}
