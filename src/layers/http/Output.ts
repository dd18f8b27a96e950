/**
 * The bytes of a job's output as they are now, or a range of them. No byte is made up: what was produced and not kept is
 * left out and said (`Stoker-Dropped-Bytes`), and a range ends before it (`Stoker-Gap`).
 */
import { Effect, Option, Stream } from "effect"
import { HttpServerResponse } from "effect/http"
import type { Caller } from "../../schemas/Access.ts"
import type { ApiError, FollowEvent, JobApi, JobRef } from "../api/JobApi.ts"
import type { LogEnd, LogEntry, LogStream } from "../log/Log.ts"
import { type ByteRange, isCurrent, parse, within } from "./ByteRange.ts"
import { outOfRange, type Refusal, replaced } from "./Problems.ts"

/** Read together, sent together. Bytes. */
const PIECE = 1024 * 1024
/** What one answer has at most of output that has gaps, or may get some. Bytes. */
const MOST_AT_ONCE = 4 * 1024 * 1024

export interface OutputRequest {
  readonly job: JobRef
  readonly stream: LogStream
  readonly run?: string | undefined
  readonly waitMs: number
  readonly range?: string | undefined
  readonly ifRange?: string | undefined
}

/** How the output stands. */
interface Standing {
  readonly run: string | undefined
  /** Bytes produced so far. */
  readonly size: number
  readonly dropped: number
  readonly state: "running" | "complete" | "incomplete" | "none"
}

const sumOf = (end: LogEnd, stream: LogStream, field: "producedBytes" | "droppedBytes") =>
  end.summaries.reduce((sum, one) => stream === "all" || one.stream === stream ? sum + one[field] : sum, 0)

const standingOf = (events: ReadonlyArray<FollowEvent>, stream: LogStream): Standing => {
  const begun = events.findLast((event) => event._tag === "Begun")
  const last = events.at(-1)
  const run = begun?.run
  if (last?._tag !== "Ended") {
    const size = last?._tag === "Paused" ? last.next : begun?.offset ?? 0
    return { run, size, dropped: 0, state: "running" }
  }
  const { end } = last
  return end === undefined
    ? { run, size: 0, dropped: 0, state: "none" }
    : {
      run,
      size: sumOf(end, stream, "producedBytes"),
      dropped: sumOf(end, stream, "droppedBytes"),
      state: end.complete ? "complete" : "incomplete"
    }
}

/** All bytes kept from `from` to `to`; up to the first gap, or without the gaps. */
const pieces = (read: Read, from: number, to: number, gaps: "end" | "skip") =>
  Stream.paginate(from, (offset) =>
    Effect.map(read(offset, Math.min(PIECE, to - offset)), ({ end, entries, next }) => {
      const gap = entries.findIndex(({ _tag }) => _tag === "Gap")
      const stops = gaps === "end" && gap >= 0
      const bytes = bytesOf(stops ? entries.slice(0, gap) : entries)
      const done = stops || next >= to || next === offset || end !== undefined
      return [bytes, done ? Option.none<number>() : Option.some(next)] as const
    }))

const bytesOf = (entries: ReadonlyArray<LogEntry>) =>
  entries.flatMap((entry) => entry._tag === "Bytes" ? [entry.bytes] : [])

type Read = (
  offset: number,
  maxBytes: number,
  waitMs?: number
) => ReturnType<JobApi["Service"]["read"]>

const noBytes = (size: number, headers: Readonly<Record<string, string>>) =>
  outOfRange(`there are ${size} bytes`, "Ask for some of them; `wait=SECONDS` waits for more.", {
    ...headers,
    "content-range": `bytes */${size}`
  })

/** One read's worth of output that has gaps, or may get some. */
const partOf = Effect.fnUntraced(function*(
  read: Read,
  { from, to }: { readonly from: number; readonly to: number },
  standing: Standing,
  headers: Readonly<Record<string, string>>
): Effect.fn.Return<HttpServerResponse.HttpServerResponse, ApiError | Refusal> {
  const { entries } = yield* read(from, Math.min(MOST_AT_ONCE, to - from))
  const gap = entries.find((entry) => entry._tag === "Gap")
  const missing = gap === undefined ? {} : { "stoker-gap": `${gap.from}-${gap.to - 1}` }
  const bytes = bytesOf(gap === undefined ? entries : entries.slice(0, entries.indexOf(gap)))
  const length = bytes.reduce((sum, { byteLength }) => sum + byteLength, 0)
  if (length === 0) {
    return yield* Effect.fail(
      gap === undefined ? noBytes(standing.size, headers) : outOfRange(
        `bytes ${gap.from} to ${gap.to - 1} were produced and not kept`,
        `Go on with byte ${gap.to}.`,
        { ...headers, ...missing, "content-range": `bytes */${standing.size}` }
      )
    )
  }
  const total = standing.state === "running" ? "*" : standing.size
  return HttpServerResponse.uint8Array(Buffer.concat(bytes), {
    status: 206,
    contentType: "application/octet-stream",
    headers: { ...headers, ...missing, "content-range": `bytes ${from}-${from + length - 1}/${total}` }
  })
})

/** Where a range of what is there begins, so that it can be waited for. */
const beginOf = (range: ByteRange | undefined) => range?._tag === "From" ? range.first : 0

/** The answer. */
export const output = Effect.fnUntraced(function*(
  api: JobApi["Service"],
  caller: Caller,
  { ifRange, job, range, run, stream, waitMs }: OutputRequest
): Effect.fn.Return<HttpServerResponse.HttpServerResponse, ApiError | Refusal> {
  const pinned = run === undefined ? {} : { run }
  const look = api.follow(caller, { ...job, ...pinned, stream, from: { newOnly: true }, wait: false }).pipe(
    Effect.flatMap(Stream.runCollect),
    Effect.map((events) => standingOf(events, stream))
  )
  const wanted = parse(range)
  const first = yield* look
  const isShort = first.state === "running" && first.size <= beginOf(wanted) && wanted?._tag !== "Suffix"
  if (isShort && waitMs > 0) {
    yield* api.read(caller, { ...job, ...pinned, stream, offset: beginOf(wanted), maxBytes: 1, waitMs })
  }
  const standing = isShort && waitMs > 0 ? yield* look : first
  const { dropped, size, state } = standing
  if (run !== undefined && standing.run !== run) {
    return yield* Effect.fail(
      replaced(`the output's writing ${run} is no more`, "Read it again from the first byte, without `run`.")
    )
  }
  const writing = standing.run ?? run
  const read: Read = (offset, maxBytes) =>
    api.read(caller, { ...job, ...(writing === undefined ? {} : { run: writing }), stream, offset, maxBytes })
  const etag = state === "complete" && writing !== undefined ? `"${encodeURIComponent(writing)}-${stream}"` : undefined
  const headers = {
    "accept-ranges": "bytes",
    "cache-control": "private, no-cache",
    "stoker-output": state,
    ...(writing === undefined ? {} : { "stoker-run": encodeURIComponent(writing) }),
    ...(etag === undefined ? {} : { etag }),
    ...(dropped === 0 ? {} : { "stoker-dropped-bytes": String(dropped) })
  }
  const asked = isCurrent(ifRange, etag) ? wanted : undefined
  if (asked === undefined) {
    const isWhole = state !== "running"
    const kept = size === 0 ? Stream.empty : pieces(read, 0, size, isWhole ? "skip" : "end")
    return HttpServerResponse.stream(kept, {
      contentType: "application/octet-stream",
      headers,
      ...(isWhole ? { contentLength: size - dropped } : {})
    })
  }
  const span = within(asked, size)
  if (span === undefined) return yield* Effect.fail(noBytes(size, headers))
  if (state === "running" || dropped > 0) return yield* partOf(read, span, standing, headers)
  return HttpServerResponse.stream(pieces(read, span.from, span.to, "end"), {
    status: 206,
    contentType: "application/octet-stream",
    contentLength: span.to - span.from,
    headers: { ...headers, "content-range": `bytes ${span.from}-${span.to - 1}/${size}` }
  })
})
