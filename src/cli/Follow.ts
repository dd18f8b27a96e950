/** Follows a job's output to its end, wherever it is written. Asks for more only when what it got has been taken. */
import { Effect } from "effect"
import type { LogEnd, LogError, LogNotFound, LogSlice, LogStream, ReadOptions } from "../layers/log/Log.ts"
import type { View } from "./View.ts"

/** Bytes asked for at once. */
const READ_BYTES = 256 * 1024

/** How long one read waits for news; a writer in this process is heard of at once. */
const WAIT_MS = 10_000

export interface FollowOptions<E> {
  readonly stream: LogStream
  /** Without it, what there is now is enough. */
  readonly wait: boolean
  readonly bytes: (...args: Parameters<View["bytes"]>) => Effect.Effect<void, E>
  readonly gap: (...args: Parameters<View["gap"]>) => Effect.Effect<void, E>
}

/** Gives the log's end, if there was one; fails when there is no log, or when nobody takes what it says. */
export const follow = <E>(
  read: (options: ReadOptions) => Effect.Effect<LogSlice, LogNotFound | LogError>,
  { bytes, gap, stream, wait }: FollowOptions<E>
): Effect.Effect<LogEnd | undefined, LogNotFound | LogError | E> =>
  Effect.gen(function*() {
    let offset = 0
    while (true) {
      const slice = yield* read({ stream, offset, maxBytes: READ_BYTES, waitMs: wait ? WAIT_MS : 0 })
      for (const entry of slice.entries) {
        yield* entry._tag === "Bytes" ? bytes(entry.stream, entry.bytes) : gap(entry.stream, entry.to - entry.from)
      }
      if (slice.end !== undefined || (!wait && slice.entries.length === 0)) return slice.end
      offset = slice.next
    }
  })
