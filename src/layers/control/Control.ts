/** What every door says to the worker. The actors implement it; gRPC, HTTP and CLI know only this tag. */
import { Context, type Effect, Schema, type Stream } from "effect"
import { InstanceId, type JobKey, JobKey as JobKeySchema } from "../../schemas/Ids.ts"
import type { JobEvent } from "../../schemas/JobEvent.ts"
import type { Terms } from "../../schemas/Terms.ts"
import type { ArtefactError, ArtefactNotFound, ArtefactRange, ArtefactSlice } from "../artefacts/Artefacts.ts"
import type { IdConflict, JobRecord, JobsWanted, JournalError, ListedJob, Request } from "../journal/Journal.ts"
import type { LogError, LogNotFound, LogSlice, ReadOptions } from "../log/Log.ts"
import type { Overloaded } from "./Overloaded.ts"

/** Also the answer for a job that belongs to somebody else: existence is not revealed. */
export class JobNotFound extends Schema.TaggedError<JobNotFound>()("JobNotFound", { key: JobKeySchema }) {
  override get message() {
    return `there is no job ${this.key.id}; \`stoker list\` shows the jobs there are`
  }
}

/** Only what has ended can be removed. Nothing was done. */
export class JobNotEnded extends Schema.TaggedError<JobNotEnded>()("JobNotEnded", { key: JobKeySchema }) {
  override get message() {
    return `job ${this.key.id} has not ended; stop it first`
  }
}

/** Another worker has what was asked for, or may have it, and does not answer. Only where others are asked at all. */
export class WorkerAway extends Schema.TaggedError<WorkerAway>()("WorkerAway", {
  key: JobKeySchema,
  /** Absent: any of them. */
  instance: Schema.optionalKey(InstanceId),
  reason: Schema.String,
  remedy: Schema.String
}) {
  override get message() {
    return `${this.reason}. ${this.remedy}`
  }
}

/** What can be asked of a worker, by whoever stands at one of its doors. */
export class Control extends Context.Service<Control, {
  /** Durable when it returns. The same request twice is one job, on the terms of the first. Absent: the standard terms. */
  readonly submit: (
    request: Request,
    terms?: Terms
  ) => Effect.Effect<JobRecord, IdConflict | Overloaded | JournalError>
  /**
   * TERM, then KILL after the grace; returns when the job has ended. A job that has ended already answers the same. One
   * that another worker runs comes back as it is, not ended, where that worker is not asked (without a broker).
   */
  readonly stop: (
    key: JobKey,
    options: { readonly reason: string; readonly graceMs: number }
  ) => Effect.Effect<JobRecord, JobNotFound | WorkerAway | JournalError>
  readonly status: (key: JobKey) => Effect.Effect<JobRecord, JobNotFound | WorkerAway | JournalError>
  /** Newest first. There may be more when there are as many as `limit`: `before` the last one's `cursor`. */
  readonly list: (filter: JobsWanted) => Effect.Effect<ReadonlyArray<ListedJob>, JournalError>
  readonly read: (key: JobKey, options: ReadOptions) => Effect.Effect<LogSlice, LogNotFound | WorkerAway | LogError>
  /** Bytes of a file that an ended job left, by the name its settlement has for it. `artefactPieces` gives all of them. */
  readonly artefact: (
    key: JobKey,
    path: string,
    range: ArtefactRange
  ) => Effect.Effect<ArtefactSlice, JobNotFound | ArtefactNotFound | WorkerAway | ArtefactError | JournalError>
  /**
   * Removes what is kept of an ended job: its files, its output, its row. What its sender has still to be told is told. The
   * id is free then: a repeat of it, also one that a broker delivers again, is a new job. After an error the row is still
   * there, and it may be asked again. Output that lies on another worker's host goes there, with the time.
   */
  readonly remove: (
    key: JobKey
  ) => Effect.Effect<void, JobNotFound | JobNotEnded | ArtefactError | LogError | JournalError>
  /** What happens from now on, all jobs. A subscriber that lags far behind loses the oldest, never slows a job. */
  readonly events: Stream.Stream<JobEvent>
}>()("stoker/layers/control/Control") {}
