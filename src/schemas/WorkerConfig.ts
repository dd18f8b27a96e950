/** How a worker is set up. Decoded once, from environment, flags and file; trusted inside. */
import { Schema } from "effect"
import { ClassName } from "./Ids.ts"
import { standardCeiling, standardDefaults } from "./Limits.ts"
import { HostBudget } from "./PoolConfig.ts"
import { SandboxClass } from "./SandboxClass.ts"

export const WorkerConfig = Schema.Struct({
  /** Jobs that run at once. */
  slots: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 10_000 })),
  /** Jobs taken from their intakes that may wait for a slot. */
  waiting: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 100_000 })),
  /** How long a claim holds without being renewed; it is renewed three times as often. */
  leaseMs: Schema.Int.check(Schema.isBetween({ minimum: 1000, maximum: 3_600_000 })),
  /** How often a job may begin when its workers die under it. */
  maxAttempts: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 100 })),
  /** A drain gives running jobs this long before it hands them back. */
  drainMs: Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 86_400_000 })),
  /** What all sandboxes may hold together. */
  budget: HostBudget,
  /** A job whose limits exceed what its broker lets it be held may be kept by this worker's own journal alone. */
  ownLongJobs: Schema.Boolean,
  classes: Schema.NonEmptyArray(SandboxClass),
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
  network: driver === "process" ? "host" : "none"
})

/** Two slots of `oci`, which is what a small machine can do; everything may be overridden. */
export const standardConfig: WorkerConfig = {
  slots: 2,
  waiting: 64,
  leaseMs: 30_000,
  maxAttempts: 2,
  drainMs: 30_000,
  budget: {},
  ownLongJobs: false,
  classes: [standardClass("oci", "oci")],
  defaultClass: ClassName.make("oci")
}
