/**
 * What the doors of the control plane (gRPC, HTTP) do for a caller: rights first, then what `Control` does, in views. All
 * of them speak to this service, so that no door has rules of its own. Its errors are mapped in `Fault.ts`, once.
 */
import { Context, type Effect, Schema, type Stream } from "effect"
import type { Caller } from "../../schemas/Access.ts"
import type { InvalidArguments } from "../../schemas/Function.ts"
import { IntakeName } from "../../schemas/Ids.ts"
import type { JobState } from "../../schemas/Job.ts"
import type { FunctionView, JobView } from "../../schemas/JobView.ts"
import type { LimitsRequest } from "../../schemas/Limits.ts"
import type { Terms } from "../../schemas/Terms.ts"
import type { ArtefactError, ArtefactNotFound, ArtefactRange, ArtefactSlice } from "../artefacts/Artefacts.ts"
import type { WorkerAway } from "../control/Control.ts"
import type { Overloaded } from "../control/Overloaded.ts"
import type { JournalError } from "../journal/Journal.ts"
import type { LogEnd, LogEntry, LogError, LogSlice, LogStream } from "../log/Log.ts"

/** The door in the keys of jobs started here, whichever protocol they came by. */
export const INTAKE = IntakeName.make("api")

/** Methods whose names say not by themselves what they do. */
const acts: Readonly<Record<string, string>> = {
  start: "start jobs",
  stop: "stop jobs",
  status: "see how jobs stand",
  list: "list jobs",
  output: "read the output of jobs",
  functions: "see which functions there are",
  delete: "delete jobs"
}

/** The caller may not do that. */
export class Forbidden extends Schema.TaggedError<Forbidden>()("Forbidden", {
  caller: Schema.String,
  method: Schema.String
}) {
  readonly reason = `${this.caller} may not ${acts[this.method] ?? this.method}`
  readonly remedy = `Ask the operator for the right${
    this.method in acts ? ` (${this.method})` : ""
  }, in the worker's roles file.`
  override get message() {
    return `${this.reason}. ${this.remedy}`
  }
}

/** No such job, or somebody else's: which of them is not told. */
export class UnknownJob extends Schema.TaggedError<UnknownJob>()("UnknownJob", { id: Schema.String }) {
  readonly reason = `there is no job ${this.id}`
  readonly remedy = "Check the id; `list` shows your jobs."
  override get message() {
    return `${this.reason}. ${this.remedy}`
  }
}

/** A request that could not be meant: a malformed id, an unknown function or class, terms out of range. */
export class InvalidRequest extends Schema.TaggedError<InvalidRequest>()("InvalidRequest", {
  reason: Schema.String,
  remedy: Schema.String
}) {
  override get message() {
    return `${this.reason}. ${this.remedy}`
  }
}

/** Only what has ended can be deleted. */
export class NotEnded extends Schema.TaggedError<NotEnded>()("NotEnded", { id: Schema.String }) {
  readonly reason = `job ${this.id} has not ended`
  readonly remedy = "Stop it first."
  override get message() {
    return `${this.reason}. ${this.remedy}`
  }
}

/** Another request has the id. */
export class IdTaken extends Schema.TaggedError<IdTaken>()("IdTaken", { id: Schema.String }) {
  readonly reason = `job id ${this.id} is already taken by another request`
  readonly remedy = "Choose a new id, or leave it out."
  override get message() {
    return `${this.reason}. ${this.remedy}`
  }
}

/** The worker that has the job, or what it is kept in, does not answer now. */
export class Unavailable extends Schema.TaggedError<Unavailable>()("Unavailable", {
  reason: Schema.String,
  remedy: Schema.String
}) {
  override get message() {
    return `${this.reason}. ${this.remedy}`
  }
}

/** What may come between a caller and its answer. */
export type ApiError =
  | Forbidden
  | UnknownJob
  | InvalidRequest
  | InvalidArguments
  | IdTaken
  | NotEnded
  | Overloaded
  | Unavailable

/** A job to start. */
export interface StartRequest {
  readonly function: string
  /** Plain JSON, for the function's own Schema. */
  readonly args: unknown
  /** Absent: a new one. The same id with the same request is the same job. */
  readonly id?: string
  /** For whom; only who is `super` in `start` may name another. Absent: the caller. */
  readonly owner?: string
  readonly class?: string
  readonly limits?: LimitsRequest
  readonly terms?: Partial<Terms>
  /** W3C trace context of the caller. */
  readonly traceparent?: string
  /** Where its outcome is posted to; only addresses the operator allows. */
  readonly webhook?: string
  /** Come back when it runs, or has ended, or after so many milliseconds. Absent: as soon as it is written down. */
  readonly waitMs?: number
}

/** Whose job. Only who is `super` in the method finds others'; without `owner` then any with that id, newest first. */
export interface JobRef {
  readonly id: string
  readonly owner?: string
}

/** Newest first. */
export interface ListRequest {
  readonly state?: JobState
  readonly function?: string
  /** Only who is `super` in `list` sees others'. Absent: all that the caller may see. */
  readonly owner?: string
  /** 1 to 1000. Absent: 100. */
  readonly limit?: number
  /** As an earlier answer gave it. */
  readonly cursor?: string
}

/** One page. */
export interface JobPage {
  readonly jobs: ReadonlyArray<JobView>
  /** There may be more. */
  readonly next?: string
}

/** Where to begin: an offset in produced bytes of that stream (0: the first), the last lines there are, or what is new. */
export type FollowFrom =
  | { readonly offset: number }
  | { readonly lastLines: number }
  | { readonly newOnly: true }

/** What to follow. */
export interface FollowRequest extends JobRef {
  /** Absent: `all`. */
  readonly stream?: LogStream
  /** Absent: from the first byte. */
  readonly from?: FollowFrom
  /** Go on in this writing of the log only, as an earlier `Begun` named it: a job begun anew ends what it had written. */
  readonly run?: string
  /** False: what there is now, and no more. Absent: up to the job's end. */
  readonly wait?: boolean
}

/** What a follower gets, in order; `Ended` is the last one, and there is always one if it waits. */
export type FollowEvent =
  /** An attempt's output begins: what came before was another one's. `offset`: where reading begins. */
  | { readonly _tag: "Begun"; readonly run: string; readonly attempt: number; readonly offset: number }
  | LogEntry
  /** The job has ended. Without `end` nothing of its output is kept. */
  | { readonly _tag: "Ended"; readonly job: JobView; readonly end?: LogEnd }
  /** Not waiting: there is no more now. `next`: where to go on. */
  | { readonly _tag: "Paused"; readonly job: JobView; readonly next: number }

/** A part of the output. */
export interface ReadRequest extends JobRef {
  readonly stream?: LogStream
  readonly offset: number
  /** At most 4 MiB are given at once. */
  readonly maxBytes: number
  readonly run?: string
  /** Milliseconds to wait for something beyond `offset`; at most 30 s. */
  readonly waitMs?: number
}

/** The control plane, for one caller at a time. */
export class JobApi extends Context.Service<JobApi, {
  /** Durable when it returns. Arguments are checked before anything is taken. */
  readonly start: (caller: Caller, request: StartRequest) => Effect.Effect<JobView, ApiError>
  /** Returns when the job has ended; one that has ended already answers the same. `graceMs` absent: 2 s; 0: KILL at once. */
  readonly stop: (
    caller: Caller,
    job: JobRef & { readonly graceMs?: number; readonly reason?: string }
  ) => Effect.Effect<JobView, ApiError>
  readonly status: (caller: Caller, job: JobRef) => Effect.Effect<JobView, ApiError>
  readonly list: (caller: Caller, request: ListRequest) => Effect.Effect<JobPage, ApiError>
  readonly read: (caller: Caller, request: ReadRequest) => Effect.Effect<LogSlice, ApiError>
  /** Rights and the job are looked at before the stream is given; interrupting it leaves nothing. */
  readonly follow: (
    caller: Caller,
    request: FollowRequest
  ) => Effect.Effect<Stream.Stream<FollowEvent, ApiError>, ApiError>
  /** Bytes of a file that an ended job left. */
  readonly artefact: (
    caller: Caller,
    job: JobRef,
    path: string,
    range: ArtefactRange
  ) => Effect.Effect<ArtefactSlice, ApiError | ArtefactNotFound>
  readonly functions: (caller: Caller) => Effect.Effect<ReadonlyArray<FunctionView>, ApiError>
  /** Its row, output and artefacts; only of a job that has ended. */
  readonly remove: (caller: Caller, job: JobRef) => Effect.Effect<void, ApiError>
}>()("stoker/layers/api/JobApi") {}

/** The inner errors that come out as `Unavailable`. */
export type Inner = JournalError | LogError | ArtefactError | WorkerAway
