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

/** What was followed: which writing of the log, and its end, if there was one. */
export interface Followed {
  readonly run: string
  readonly end: LogEnd | undefined
}

/** Shows one attempt's output from its beginning; fails when there is no log, or when nobody takes what it says. */
export const follow = <E>(
  read: (options: ReadOptions) => Effect.Effect<LogSlice, LogNotFound | LogError>,
  { bytes, gap, stream, wait }: FollowOptions<E>
): Effect.Effect<Followed, LogNotFound | LogError | E> =>
  Effect.gen(function*() {
    let offset = 0
    let run: { readonly run?: string } = {}
    while (true) {
      const slice: LogSlice = yield* read({ ...run, stream, offset, maxBytes: READ_BYTES, waitMs: wait ? WAIT_MS : 0 })
      run = { run: run.run ?? slice.run }
      for (const entry of slice.entries) {
        yield* entry._tag === "Bytes" ? bytes(entry.stream, entry.bytes) : gap(entry.stream, entry.to - entry.from)
      }
      if (slice.end !== undefined || (!wait && slice.entries.length === 0)) {
        return { run: run.run ?? slice.run, end: slice.end }
      }
      offset = slice.next
    }
  })
