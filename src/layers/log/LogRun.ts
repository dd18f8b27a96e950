/** What readers are given, put together from the kept pieces of a log. Pure. */
import type { StreamName } from "../../schemas/Outcome.ts"
import type { LogEntry, LogStream } from "./Log.ts"

/** Bytes each stream had produced at some moment: a point in the order of arrival. */
export interface Place {
  readonly stdout: number
  readonly stderr: number
}

export const start: Place = { stdout: 0, stderr: 0 }

/** A place as an offset of what a reader asked for. */
export const offsetOf = (place: Place, stream: LogStream): number =>
  stream === "all" ? place.stdout + place.stderr : place[stream]

/** The place behind `length` more bytes of a stream. */
export const advance = (place: Place, stream: StreamName, length: number): Place =>
  stream === "stdout"
    ? { stdout: place.stdout + length, stderr: place.stderr }
    : { stdout: place.stdout, stderr: place.stderr + length }

/** Kept bytes of one stream that arrived in one go. */
export interface Run {
  readonly stream: StreamName
  /** Of the first byte, in its own stream. */
  readonly at: number
  /** Of the first byte, in both streams' order of arrival. */
  readonly all: number
  readonly bytes: Uint8Array
  /** The bytes lie in memory that is written again: readers get a copy. */
  readonly isShared?: boolean
}

/** Before the first byte of a run. */
export const placeOf = (run: Run): Place => {
  const other = run.all - run.at
  return run.stream === "stdout" ? { stdout: run.at, stderr: other } : { stdout: other, stderr: run.at }
}

/** The bytes `from` (inclusive) to `to` (exclusive) of a stream are not kept. Equal: none is missing. */
export interface Lost {
  readonly from: number
  readonly to: number
}

/** What is known of a log when it is read. */
export interface Extent {
  /** Everything before is decided: among the runs, or lost. */
  readonly limit: Place
  readonly lost: Readonly<Record<StreamName, Lost>>
  /** Behind the last byte of the head part. */
  readonly headEnd: Place
}

export interface Range {
  readonly stream: LogStream
  readonly offset: number
  readonly maxBytes: number
}

/**
 * A gap of both streams' order, told stream by stream, stdout first: the order within a gap is not kept. Exact when
 * `before` is known; else only in sum, and that only where both streams lost bytes.
 */
const gapsOfAll = (from: number, before: Place | undefined, after: Place, lost: Extent["lost"]): Array<LogEntry> => {
  const length = after.stdout + after.stderr - from
  const atMost = (stream: StreamName) => Math.max(0, Math.min(after[stream], lost[stream].to) - lost[stream].from)
  const stdout = before === undefined
    ? Math.max(Math.min(length, atMost("stdout")), length - atMost("stderr"))
    : after.stdout - before.stdout
  const middle = from + Math.min(length, stdout)
  const gaps: Array<LogEntry> = [
    { _tag: "Gap", stream: "stdout", from, to: middle },
    { _tag: "Gap", stream: "stderr", from: middle, to: from + length }
  ]
  return gaps.filter((gap) => gap._tag === "Gap" && gap.to > gap.from)
}

/**
 * Entries from `range.offset` on. `runs` come from any number of sources, each of which gave its first `maxBytes` bytes
 * from the offset on (or all it has): so whatever is missing before the budget is used up is lost.
 */
export const assemble = (
  range: Range,
  runs: Array<Run>,
  extent: Extent
): { readonly entries: ReadonlyArray<LogEntry>; readonly next: number; readonly available: number } => {
  const { stream } = range
  const startOf = (run: Run) => stream === "all" ? run.all : run.at
  const limit = offsetOf(extent.limit, stream)
  const entries: Array<LogEntry> = []
  const gap = (from: number, before: Place | undefined, after: Place) => {
    if (stream === "all") entries.push(...gapsOfAll(from, before, after, extent.lost))
    else entries.push({ _tag: "Gap", stream, from, to: after[stream] })
  }
  let next = range.offset
  let budget = Math.max(1, range.maxBytes)
  let place = next === 0 ? start : next === offsetOf(extent.headEnd, stream) ? extent.headEnd : undefined
  for (const run of runs.toSorted((a, b) => startOf(a) - startOf(b))) {
    const offset = startOf(run)
    if (budget === 0 || offset >= limit) break
    if (offset > next) gap(next, place, placeOf(run))
    const bytes = run.bytes.subarray(0, Math.min(budget, limit - offset))
    entries.push({ _tag: "Bytes", stream: run.stream, offset, bytes: run.isShared === true ? bytes.slice() : bytes })
    next = offset + bytes.length
    budget -= bytes.length
    place = advance(placeOf(run), run.stream, bytes.length)
  }
  if (budget > 0 && next < limit) {
    gap(next, place, extent.limit)
    next = limit
  }
  return { entries, next, available: limit }
}
