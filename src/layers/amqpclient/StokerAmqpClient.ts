/** Stoker from the other side of the broker: sends jobs, and asks whichever worker has one. */
import { Context, type Duration, type Effect, Schema, type Scope, type Stream } from "effect"
import type { StokerJobView } from "../../schemas/dialects/StokerControl.ts"
import type { StokerEvent } from "../../schemas/dialects/StokerEvent.ts"
import type { Labels } from "../../schemas/dialects/StokerJob.ts"
import type { ClassName, FunctionName, InstanceId, IntakeName, JobId, Owner } from "../../schemas/Ids.ts"
import type { JobState } from "../../schemas/Job.ts"
import type { LimitsRequest } from "../../schemas/Limits.ts"
import type { Outcome } from "../../schemas/Outcome.ts"
import type { AmqpError } from "../amqp/Amqp.ts"
import type { ArtefactNotFound, ArtefactRange, ArtefactSlice } from "../artefacts/Artefacts.ts"
import type { JobNotFound } from "../control/Control.ts"
import type { LogNotFound, LogSlice, ReadOptions } from "../log/Log.ts"

/** What came between us and an answer. */
export class StokerClientError extends Schema.TaggedError<StokerClientError>()("StokerClientError", {
  operation: Schema.String,
  reason: Schema.Literals(["BrokerAway", "NoWorker", "Trouble"]),
  detail: Schema.String,
  remedy: Schema.String
}) {
  override get message() {
    return `${this.operation} failed (${this.reason}): ${this.detail}. ${this.remedy}`
  }
}

/** A job to send. The same id and request twice is one job. */
export interface JobToSend {
  readonly id: JobId
  readonly function: FunctionName
  readonly args: Schema.Json
  readonly class?: ClassName
  readonly limits?: LimitsRequest
  /** Come back with every event. */
  readonly labels?: Labels
  /** Default `normal`. */
  readonly priority?: "high" | "normal" | "low"
  /** Milliseconds from now: not to be run before. */
  readonly delayMs?: number
  /** Milliseconds it may wait for a worker, from now or from the end of its delay. */
  readonly ttlMs?: number
  readonly maxAttempts?: number
  /** Milliseconds before the second try, doubled for each further one. */
  readonly retryBackoffMs?: number
  /** Outcomes to try again; none for never. Absent: the workers' usual ones. */
  readonly retryOn?: ReadonlyArray<Outcome["_tag"]>
  /** W3C trace context; absent: that of the present span. */
  readonly traceparent?: string
}

/** A job as it is asked for. Absent: owner as the broker or the workers know us, door `stoker`. */
export interface JobAsked {
  readonly id: JobId
  readonly owner?: Owner
  readonly intake?: IntakeName
  /** Who is asked first, and then all. Absent: who answered last time. */
  readonly worker?: InstanceId
}

/** Which jobs. What is absent does not matter. */
export interface JobsAsked {
  readonly id?: JobId
  readonly owner?: Owner
  readonly function?: FunctionName
  readonly state?: JobState
  readonly limit: number
  /** How long answers are waited for: always so long, for nobody knows how many workers there are. Absent: 2 s. */
  readonly within?: Duration.Input
}

type Failure = StokerClientError | AmqpError

export class StokerAmqpClient extends Context.Service<StokerAmqpClient, {
  /** Durable at the broker when it returns; workers need not be there yet. */
  readonly submit: (job: JobToSend) => Effect.Effect<void, Failure>
  /** `submit`, and the job's events up to its end, while the scope is open. Those of a lost connection are lost. */
  readonly follow: (job: JobToSend) => Effect.Effect<Stream.Stream<StokerEvent>, Failure, Scope.Scope>
  /** What no worker has claimed yet is not found. */
  readonly status: (job: JobAsked) => Effect.Effect<StokerJobView, JobNotFound | Failure>
  /** Returns when the job has ended. */
  readonly stop: (
    job: JobAsked,
    options: { readonly reason: string; readonly graceMs: number }
  ) => Effect.Effect<StokerJobView, JobNotFound | Failure>
  /** Of all workers that answer in time, the newest first. */
  readonly list: (filter: JobsAsked) => Effect.Effect<ReadonlyArray<StokerJobView>, Failure>
  /** Whether that worker answers. */
  readonly hears: (worker: InstanceId) => Effect.Effect<boolean, Failure>
  /** As `Log.read`; a worker waits 10 s at most for news. */
  readonly read: (job: JobAsked, options: ReadOptions) => Effect.Effect<LogSlice, LogNotFound | Failure>
  /** Bytes of a file that an ended job left, 4 MiB at most; `artefactPieces` gives all of them. */
  readonly artefact: (
    job: JobAsked,
    path: string,
    range: ArtefactRange
  ) => Effect.Effect<ArtefactSlice, ArtefactNotFound | Failure>
}>()("stoker/layers/amqpclient/StokerAmqpClient") {}
