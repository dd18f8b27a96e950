/** Follows a job's output to its end, wherever it is written: hands out bytes and gaps in order, asks for no more than it can hand on. */
import { Effect } from "effect"
import type { LogEnd, LogError, LogNotFound, LogSlice, LogStream, ReadOptions } from "../layers/log/Log.ts"
import type { View } from "./View.ts"

/** Bytes asked for at once. */
const READ_BYTES = 256 * 1024

/** How long one read waits for news; a writer in this process is heard of at once. */
const WAIT_MS = 10_000

/** `read` of one job. Gives its end; fails when there is no log, or when the view takes no more. */
export const follow = <E>(
  read: (options: ReadOptions) => Effect.Effect<LogSlice, LogNotFound | LogError>,
  stream: LogStream,
  { bytes, gap }: {
    readonly bytes: (...args: Parameters<View["bytes"]>) => Effect.Effect<void, E>
    readonly gap: (...args: Parameters<View["gap"]>) => Effect.Effect<void, E>
  }
): Effect.Effect<LogEnd, LogNotFound | LogError | E> =>
  Effect.gen(function*() {
    let offset = 0
    while (true) {
      const slice = yield* read({ stream, offset, maxBytes: READ_BYTES, waitMs: WAIT_MS })
      for (const entry of slice.entries) {
        yield* entry._tag === "Bytes" ? bytes(entry.stream, entry.bytes) : gap(entry.stream, entry.to - entry.from)
      }
      if (slice.end !== undefined) return slice.end
      offset = slice.next
    }
  })
