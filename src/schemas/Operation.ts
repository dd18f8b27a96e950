/** What a worker tells its operator, over the admin socket and in the log. Plain JSON. */
import { Schema } from "effect"
import { InstanceId, JobKey } from "./Ids.ts"
import { PhaseName } from "./Program.ts"
import { Observation } from "./Usage.ts"

/** Why a worker takes no jobs, and what to do. */
export const Unready = Schema.Struct({ part: Schema.String, reason: Schema.String, remedy: Schema.String })
export type Unready = typeof Unready.Type

/** Whether it is as it should be; `reasons` is empty just then. */
export const Health = Schema.Struct({ ok: Schema.Boolean, reasons: Schema.Array(Unready) })
export type Health = typeof Health.Type

/** One class's sandboxes now. */
export const PoolStatus = Schema.Struct({
  class: Schema.String,
  idle: Schema.Natural,
  used: Schema.Natural,
  making: Schema.Natural,
  /** Jobs that wait for one. */
  waiting: Schema.Natural,
  /** How many should stand ready. */
  target: Schema.Natural,
  /** Why none can be made. */
  failing: Schema.optionalKey(Schema.String)
})

export const BrokerStatus = Schema.Struct({
  connected: Schema.Boolean,
  queues: Schema.Array(Schema.String),
  /** The broker's words while it takes nothing. */
  blocked: Schema.optionalKey(Schema.String),
  lastError: Schema.optionalKey(Schema.String)
})

export const WorkerStatus = Schema.Struct({
  version: Schema.String,
  instance: InstanceId,
  pid: Schema.Natural,
  /** Since the worker was ready. Milliseconds. */
  uptimeMs: Schema.Natural,
  draining: Schema.Boolean,
  /** The configuration file it was started with. */
  file: Schema.optionalKey(Schema.String),
  slots: Schema.Natural,
  /** Jobs taken and not ended: running, and waiting for a slot. */
  inHand: Schema.Natural,
  /** Doors and loops, each `running`, `restarting`, `givenUp` or `closed`. */
  parts: Schema.Array(Schema.Struct({ name: Schema.String, state: Schema.String })),
  pools: Schema.Array(PoolStatus),
  /** Absent: no broker is configured. */
  broker: Schema.optionalKey(BrokerStatus)
})
export type WorkerStatus = typeof WorkerStatus.Type

/** A field that reads otherwise than what the worker runs with. */
export const Change = Schema.Struct({
  /** As the configuration file calls it. */
  field: Schema.String,
  /** False: from the next start on. */
  applied: Schema.Boolean
})

/** What came of reading the configuration again. */
export const Reloaded = Schema.Struct({ file: Schema.String, changes: Schema.Array(Change) })
export type Reloaded = typeof Reloaded.Type

/** One job in its sandbox. */
export const JobNow = Schema.Struct({
  key: JobKey,
  function: Schema.String,
  class: Schema.String,
  attempt: Schema.Natural,
  /** Absent between phases. */
  phase: Schema.optionalKey(PhaseName),
  /** Since its sandbox was ready. Milliseconds. */
  runningMs: Schema.Natural,
  /** Where its counters are, e.g. its cgroup. */
  place: Schema.String,
  now: Observation
})
export type JobNow = typeof JobNow.Type

/** Those of one worker, the oldest first. */
export const JobsNow = Schema.Struct({ jobs: Schema.Array(JobNow) })
export type JobsNow = typeof JobsNow.Type

/** A request to end one job. */
export const StopJob = Schema.Struct({
  key: JobKey,
  reason: Schema.String.check(Schema.isMaxLength(500)),
  /** Between TERM and KILL. Milliseconds. */
  graceMs: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 600_000 }))
})
export type StopJob = typeof StopJob.Type

/** How a stopped job ended, in words. */
export const JobStopped = Schema.Struct({ state: Schema.String, outcome: Schema.optionalKey(Schema.String) })

/** The answer to a request that could not be served. */
export const Refused = Schema.Struct({ reason: Schema.String, remedy: Schema.String })
export type Refused = typeof Refused.Type
