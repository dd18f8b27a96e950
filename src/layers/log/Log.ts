/** A job's output: the exact bytes, in order, stdout and stderr told apart, readable from any offset, while it grows. */
import { Context, type Effect, Schema, type Scope } from "effect"
import type { JobKey } from "../../schemas/Ids.ts"
import { JobKey as JobKeySchema } from "../../schemas/Ids.ts"
import type { StreamSummary } from "../../schemas/JobEvent.ts"
import type { StreamName } from "../../schemas/Outcome.ts"

/** The log could not be read or written. */
export class LogError extends Schema.TaggedError<LogError>()("LogError", {
  operation: Schema.Literals(["open", "append", "read", "end", "remove"]),
  reason: Schema.String,
  remedy: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    return `the log could not ${this.operation}: ${this.reason}. ${this.remedy}`
  }
}

/** There is no log of that job: it never ran here, or its retention is over. */
export class LogNotFound extends Schema.TaggedError<LogNotFound>()("LogNotFound", { key: JobKeySchema }) {
  override get message() {
    return `no output is kept for ${this.key.intake}/${this.key.owner}/${this.key.id}`
  }
}

/** `all` is both streams in order of arrival; its offsets count the produced bytes of both. */
export type LogStream = StreamName | "all"

/** A piece of a log, in order. */
export type LogEntry =
  /** `offset` is the place of the first byte in the stream that was asked for. */
  | { readonly _tag: "Bytes"; readonly stream: StreamName; readonly offset: number; readonly bytes: Uint8Array }
  /** Bytes `from` (inclusive) to `to` (exclusive) were produced and not kept. */
  | { readonly _tag: "Gap"; readonly stream: StreamName; readonly from: number; readonly to: number }

/** What one read gives. */
export interface LogSlice {
  readonly entries: ReadonlyArray<LogEntry>
  /** Where the next read goes on. */
  readonly next: number
  /** Behind the last byte that can be had now, kept or not: what is still to be read is `next` to here. */
  readonly available: number
  /** Which writing of the log this is: another attempt's log has another one. */
  readonly run: string
  /** Present once everything up to the end has been given: nothing will follow `next`. */
  readonly end?: LogEnd
}

/** What came of both streams, once nothing follows. */
export interface LogEnd {
  readonly summaries: ReadonlyArray<StreamSummary>
  /** False when the worker died before it could write the end: the tail may be missing. */
  readonly complete: boolean
}

/** Where to read, how much, and how long to wait for it. */
export interface ReadOptions {
  readonly stream: LogStream
  /** In produced bytes of that stream. Inside a gap: the rest of the gap is given first. */
  readonly offset: number
  /** Most bytes to give at once; at least one byte is given when there is one. */
  readonly maxBytes: number
  /** Go on in this writing of the log only: when another attempt has replaced it, the answer is an incomplete end. */
  readonly run?: string
  /** How long to wait for news when there is nothing beyond `offset` yet; 0 answers at once. */
  readonly waitMs: number
}

/** The writing end, held by the one job actor that runs the job. */
export interface LogWriter {
  /** Takes the bytes (they are not changed afterwards). Suspends only for the disk, never for a reader. */
  readonly append: (stream: StreamName, bytes: Uint8Array) => Effect.Effect<void, LogError>
  /** Bytes produced so far by that stream. */
  readonly produced: (stream: StreamName) => number
  /** Writes the end record; all that was appended is then in the kernel's hands. Idempotent. */
  readonly end: Effect.Effect<ReadonlyArray<StreamSummary>, LogError>
}

/** Where jobs' output is kept. */
export class Log extends Context.Service<Log, {
  /**
   * Opens a job's log for writing. A former attempt's output is replaced (`attempt` > 1): readers of it see their end.
   * `keepBytes` is the limit for each stream: over it head and tail are kept, half each, and the middle becomes a gap.
   */
  readonly open: (
    key: JobKey,
    options: { readonly attempt: number; readonly keepBytes: number }
  ) => Effect.Effect<LogWriter, LogError, Scope.Scope>
  readonly read: (key: JobKey, options: ReadOptions) => Effect.Effect<LogSlice, LogNotFound | LogError>
  /** The kept bytes of one stream, gaps left out, up to `maxBytes` from its beginning. For status messages. */
  readonly text: (
    key: JobKey,
    stream: StreamName,
    maxBytes: number
  ) => Effect.Effect<Uint8Array, LogNotFound | LogError>
  readonly remove: (key: JobKey) => Effect.Effect<void, LogError>
  /**
   * Removes logs of forgotten jobs: of those that were not written for `idleMs`, the ones whose keys (`keyText`)
   * `forgotten` gives back. A bounded part with each call, which goes on where the last one ended, round and round.
   * Gives how many were removed.
   */
  readonly prune: <E>(
    idleMs: number,
    forgotten: (keys: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<string>, E>
  ) => Effect.Effect<number, LogError | E>
}>()("stoker/layers/log/Log") {}
