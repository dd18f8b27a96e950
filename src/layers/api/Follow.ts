/**
 * One pull under all doors: a job's output from any place on, over as many attempts as it takes, to its end. It asks for
 * more only when what it gave has been taken, so that a slow follower costs one piece of memory and slows nobody.
 */
import { Array as Arr, Cause, Effect, Stream } from "effect"
import type { JobKey } from "../../schemas/Ids.ts"
import type { JobView } from "../../schemas/JobView.ts"
import type { JobRecord } from "../journal/Journal.ts"
import type { LogEnd, LogNotFound, LogSlice, LogStream, ReadOptions } from "../log/Log.ts"
import type { FollowEvent, FollowFrom, Unavailable, UnknownJob } from "./JobApi.ts"
import type { JobNews } from "./JobNews.ts"

/** Bytes asked for at once: from the disk, a quarter of it costs three times as much for each byte (measured). */
const PIECE = 256 * 1024
/** How long one read waits for news; a read that waits costs nothing. */
const WAIT_MS = 10_000
/** Bytes looked through at once for the ends of lines. */
const LINES_PIECE = 256 * 1024

/** What following needs of the worker. */
export interface Source {
  readonly key: JobKey
  readonly status: Effect.Effect<JobRecord, UnknownJob | Unavailable>
  readonly read: (options: ReadOptions) => Effect.Effect<LogSlice, LogNotFound | Unavailable>
  readonly news: JobNews
  readonly view: (record: JobRecord) => JobView
}

export interface FollowOptions {
  readonly stream: LogStream
  readonly from: FollowFrom
  /** The writing of the log that `from` is about. Another one is given from its first byte. */
  readonly run?: string
  /** False: up to what there is now. */
  readonly wait: boolean
}

const NEWLINE = 10

/** The bytes from `from` to `to`, gaps left out. */
const piecesOf = Effect.fnUntraced(function*(
  read: Source["read"],
  stream: LogStream,
  run: string,
  from: number,
  to: number
) {
  const pieces: Array<{ readonly at: number; readonly bytes: Uint8Array }> = []
  for (let offset = from; offset < to;) {
    const { entries, next } = yield* read({ stream, offset, maxBytes: to - offset, waitMs: 0, run })
    for (const entry of entries) {
      // A gap counts for nothing, so what comes behind it may reach beyond.
      if (entry._tag === "Bytes" && entry.offset < to) {
        pieces.push({ at: entry.offset, bytes: entry.bytes.subarray(0, to - entry.offset) })
      }
    }
    if (next <= offset) break
    offset = next
  }
  return pieces
})

/** Where the last lines begin, looking backwards from `end`. A last line that has no end yet is one. */
const lastLines = Effect.fnUntraced(function*(
  read: Source["read"],
  stream: LogStream,
  run: string,
  end: number,
  lines: number
) {
  if (lines === 0) return end
  let found = 0
  for (let to = end; to > 0; to = Math.max(0, to - LINES_PIECE)) {
    const pieces = yield* piecesOf(read, stream, run, Math.max(0, to - LINES_PIECE), to)
    for (const { at, bytes } of pieces.toReversed()) {
      for (let index = bytes.lastIndexOf(NEWLINE); index >= 0; index = bytes.lastIndexOf(NEWLINE, index - 1)) {
        if (at + index < end - 1) found += 1
        if (found === lines) return at + index + 1
        if (index === 0) break
      }
    }
  }
  return 0
})

/** Gives `Ended` or `Paused` last. */
export const follow = (
  { key, news, read, status, view }: Source,
  { from, run: wanted, stream, wait }: FollowOptions
): Stream.Stream<FollowEvent, UnknownJob | Unavailable> => {
  /** The writing of the log that is being read, and from where. */
  let reading: string | undefined
  let offset = 0
  /** The last one that was read to its end: what is written next has another name. */
  let readBefore: string | undefined
  let end: LogEnd | undefined
  let isFirst = true
  let isOver = false

  const over = (event: FollowEvent) => {
    isOver = true
    return [event]
  }

  /** Where to begin in the first log that is found. */
  const begin = Effect.fnUntraced(function*({ available, run }: LogSlice) {
    if (wanted !== undefined && wanted !== run) return 0
    if ("offset" in from) return from.offset
    return "newOnly" in from ? available : yield* lastLines(read, stream, run, available, from.lastLines)
  })

  /** Looks for a log that was not read yet; waits, unless there is none to come. */
  const seek = Effect.gen(function*() {
    const heard = yield* news.subscribe(key)
    const record = yield* status
    const found = yield* read({ stream, offset: 0, maxBytes: 1, waitMs: 0 }).pipe(
      Effect.catchTag("LogNotFound", () => Effect.undefined)
    )
    // What a former try has left while its job waits for the next one is not what is followed.
    const isPresent = found !== undefined && found.run !== readBefore && record.state !== "queued"
    if (isPresent) {
      offset = isFirst
        ? yield* begin(found).pipe(Effect.catchTag("LogNotFound", () => Effect.succeed(0)))
        : 0
      isFirst = false
      reading = found.run
      end = undefined
      return [{ _tag: "Begun", run: found.run, attempt: record.attempt, offset }] satisfies ReadonlyArray<FollowEvent>
    }
    if (record.state === "ended") {
      return over({ _tag: "Ended", job: view(record), ...(end === undefined ? {} : { end }) })
    }
    if (!wait) return over({ _tag: "Paused", job: view(record), next: offset })
    yield* heard
    return []
  })

  const readOn = Effect.fnUntraced(function*(run: string) {
    const slice = yield* read({ stream, offset, maxBytes: PIECE, waitMs: wait ? WAIT_MS : 0, run }).pipe(
      Effect.catchTag("LogNotFound", () => Effect.undefined)
    )
    if (slice === undefined || slice.end !== undefined) {
      readBefore = run
      reading = undefined
      end = slice?.end
    }
    if (slice === undefined) return []
    offset = slice.next
    if (!wait && slice.end === undefined && slice.entries.length === 0) {
      return over({ _tag: "Paused", job: view(yield* status), next: offset })
    }
    return slice.entries
  })

  const pull = Effect.gen(function*() {
    while (true) {
      if (isOver) return yield* Cause.done()
      const events: ReadonlyArray<FollowEvent> = yield* reading === undefined ? seek : readOn(reading)
      if (Arr.isReadonlyArrayNonEmpty(events)) return events
    }
  })
  return Stream.fromPull(Effect.succeed(pull))
}
