/** What an operator asks of a running worker. The actors implement it; admin socket and command line know only this tag. */
import { Context, type Effect, Schema } from "effect"
import type { JobKey } from "../../schemas/Ids.ts"
import type { Health, JobsNow, Reloaded, WorkerStatus } from "../../schemas/Operation.ts"
import type { JobRecord, JournalError } from "../journal/Journal.ts"
import type { JobNotFound, WorkerAway } from "./Control.ts"

/** The configuration could not be read again, or is wrong. The worker goes on as it was. */
export class ReloadRefused extends Schema.TaggedError<ReloadRefused>()("ReloadRefused", {
  reason: Schema.String,
  remedy: Schema.String
}) {
  override get message() {
    return `the configuration was not read again: ${this.reason}. ${this.remedy}`
  }
}

/** What the operator of a running worker asks of it. */
export class Operator extends Context.Service<Operator, {
  /** Ok as long as nothing of the worker is given up. */
  readonly live: Effect.Effect<Health>
  /** Ok while it can take jobs and run them. */
  readonly ready: Effect.Effect<Health>
  readonly status: Effect.Effect<WorkerStatus>
  /** What its jobs use now. */
  readonly jobs: Effect.Effect<JobsNow>
  /** All metrics of the process, in Prometheus' text format. */
  readonly metrics: Effect.Effect<string>
  /** Begins a drain, once; returns at once. */
  readonly drain: Effect.Effect<void>
  /** Waits until a drain has ended. The process may then end. */
  readonly drained: Effect.Effect<void>
  /** Reads the configuration again and applies what can be applied to a running worker. */
  readonly reload: Effect.Effect<Reloaded, ReloadRefused>
  /** Ends a job, also one that nobody runs yet; returns when it has ended. */
  readonly stop: (
    key: JobKey,
    options: { readonly reason: string; readonly graceMs: number }
  ) => Effect.Effect<JobRecord, JobNotFound | WorkerAway | JournalError>
}>()("stoker/layers/control/Operator") {}
