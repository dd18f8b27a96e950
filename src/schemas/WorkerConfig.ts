/** How a worker is set up. Decoded once, from environment, flags and file; trusted inside. */
import { Schema } from "effect"
import { Schedules } from "./Cron.ts"
import { HttpListen } from "./HttpListen.ts"
import { ClassName } from "./Ids.ts"
import { standardCeiling, standardDefaults } from "./Limits.ts"
import { ObjectStoreConfig } from "./ObjectStoreConfig.ts"
import { HostBudget } from "./PoolConfig.ts"
import { SandboxClass } from "./SandboxClass.ts"
import { PriorityWeights, standardWeights } from "./Terms.ts"

const span = Schema.Int.check(
  Schema.isBetween({ minimum: 0, maximum: 10 * 366 * 86_400_000 }, { expected: "milliseconds, ten years at most" })
)

/** How long what is over is kept. Milliseconds. */
export const Retention = Schema.Struct({
  /** A repeat of a job that ended less than this ago is answered again instead of run again. */
  dedupeMs: span,
  /** Ended jobs and their logs; at least `dedupeMs`. */
  jobsMs: span,
  /** Dead letters of the embedded queue. Those at a broker are kept until they are dropped. */
  deadLettersMs: span
})
export type Retention = typeof Retention.Type

const whole = (minimum: number, maximum: number, what: string) =>
  Schema.Int.check(Schema.isBetween({ minimum, maximum }, { expected: `${what} from ${minimum} to ${maximum}` }))

/** All settings of one worker. Times are milliseconds. */
export const WorkerConfig = Schema.Struct({
  /** Jobs that run at once. */
  slots: whole(1, 10_000, "jobs"),
  /** Jobs taken from their intakes that may wait for a slot. */
  waiting: whole(0, 100_000, "jobs"),
  /** Whose turn it is while jobs of several priorities wait. */
  weights: PriorityWeights,
  /** Jobs of one owner that run at once. Absent: as many as there are slots. */
  ownerSlots: Schema.optionalKey(whole(1, 10_000, "jobs")),
  /** Rows the embedded queue may hold; more are refused. */
  queueMaximum: whole(1, 100_000_000, "jobs"),
  /** How long a claim holds without being renewed; it is renewed three times as often. */
  leaseMs: whole(1000, 3_600_000, "milliseconds"),
  /** How often a job may begin when its workers die under it. */
  maxAttempts: whole(1, 100, "attempts"),
  /** A drain gives running jobs this long before it hands them back. */
  drainMs: whole(0, 86_400_000, "milliseconds"),
  retention: Retention,
  /** With less than this free in the state directory no new job is taken. Bytes. */
  diskReserveBytes: whole(0, 2 ** 50, "bytes"),
  /** What all sandboxes may hold together. */
  budget: HostBudget,
  /** The compile cache's size on disk. 0: none. */
  compileCacheBytes: whole(0, 2 ** 50, "bytes"),
  /** Artefacts of one job, together. They pass through the worker's memory. */
  artefactBytes: whole(0, 2 ** 30, "bytes"),
  /** A job whose limits exceed what its broker lets it be held may be kept by this worker's own journal alone. */
  ownLongJobs: Schema.Boolean,
  /** What is started by the clock. Absent: nothing. */
  cron: Schema.optionalKey(Schedules),
  classes: Schema.NonEmptyArray(SandboxClass),
  /** Serve the MSTC worker's clients, at the broker and, with `listen` (HOST:PORT), over its REST. Absent: no. */
  mstc: Schema.optionalKey(Schema.Struct({ class: ClassName, listen: Schema.optionalKey(HttpListen) })),
  /** Where container jobs' files come from and go to, and their logs. Absent: no store is known. */
  objectStore: Schema.optionalKey(ObjectStoreConfig),
  /** What a job without a class gets. */
  defaultClass: ClassName
})
export type WorkerConfig = typeof WorkerConfig.Type

/** A class with the standard limits. */
export const standardClass = (name: string, driver: SandboxClass["driver"]): SandboxClass => ({
  name: ClassName.make(name),
  driver,
  ceiling: standardCeiling,
  defaults: standardDefaults,
  network: driver === "process" || driver === "kubernetes" ? "host" : "none"
})

/** Two slots of `oci`, which is what a small machine can do; everything may be overridden. */
export const standardConfig: WorkerConfig = {
  slots: 2,
  waiting: 64,
  weights: standardWeights,
  queueMaximum: 1_000_000,
  leaseMs: 30_000,
  maxAttempts: 2,
  drainMs: 30_000,
  retention: { dedupeMs: 86_400_000, jobsMs: 7 * 86_400_000, deadLettersMs: 30 * 86_400_000 },
  diskReserveBytes: 64 * 1024 * 1024,
  budget: {},
  compileCacheBytes: 1024 ** 3,
  artefactBytes: 16 * 1024 * 1024,
  ownLongJobs: false,
  classes: [standardClass("oci", "oci")],
  defaultClass: ClassName.make("oci")
}
