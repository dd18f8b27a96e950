/** How many sandboxes of a class are kept warm, and what all sandboxes of a worker may hold together. */
import { Effect, Schema } from "effect"

const whole = (minimum: number, maximum: number, what: string) =>
  Schema.Int.check(Schema.isBetween({ minimum, maximum }, { expected: `${what} from ${minimum} to ${maximum}` }))

const orElse = <S extends Schema.Top & { readonly DecodingServices: never }>(schema: S, value: S["Encoded"]) =>
  schema.pipe(Schema.withDecodingDefaultKey(Effect.succeed(value)))

const HOUR_MS = 3_600_000

/** What one sandbox of a class counts for in the host's budget, from its first kernel object to its last. */
export const PoolCharge = Schema.Struct({
  memoryBytes: whole(0, 2 ** 50, "bytes"),
  /** Cores: 0.5 is half of one. */
  cpus: Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 4096 }))
})
export type PoolCharge = typeof PoolCharge.Type

/**
 * What all sandboxes of one worker may hold together: warm ones, those in use, those being made, and those whose
 * teardown has not ended. Absent is without bound. Every class has to fit at least once.
 */
export const HostBudget = Schema.Struct({
  /** Sum of the charges' memory. */
  memoryBytes: Schema.optionalKey(whole(1, 2 ** 50, "bytes")),
  /** Sum of the charges' cores. */
  cpus: Schema.optionalKey(Schema.Finite.check(Schema.isBetween({ minimum: 0.01, maximum: 4096 }))),
  sandboxes: Schema.optionalKey(whole(1, 100_000, "sandboxes"))
})
export type HostBudget = typeof HostBudget.Type

/** The pool of one class. All times are milliseconds. */
export const PoolConfig = Schema.Struct({
  /** Ready sandboxes kept however little is asked for. 0: none while nothing comes. Default 1. */
  minimum: orElse(whole(0, 10_000, "sandboxes"), 1),
  /** Ready sandboxes at most; between the two, arrivals decide. 0: none is ever made ahead. Default 4. */
  maximum: orElse(whole(0, 10_000, "sandboxes"), 4),
  /** Refills made at once. Jobs that wait are not held up by it: each has one being made. Default 2. */
  parallel: orElse(whole(1, 1000, "sandboxes"), 2),
  /**
   * While another one stands ready, the replacement of one that was taken waits this long: to make it keeps cores and
   * this process busy, just when the job wants to begin. 0: at once. Default 0; with `oci` on few cores, 5 pays.
   */
  refillPauseMs: orElse(whole(0, HOUR_MS, "milliseconds"), 0),
  /** A sandbox not ready in this time is given up and counts as a failure. Default 15 s. */
  provisionMs: orElse(whole(1, HOUR_MS, "milliseconds"), 15_000),
  /** An older one is never handed out. Each is replaced up to a tenth earlier, so that not all go at once. Default 1 h. */
  maxAgeMs: orElse(whole(1, 365 * 24 * HOUR_MS, "milliseconds"), HOUR_MS),
  /** How often one that stands ready is asked for a sign of life. Default 5 s. */
  healthEveryMs: orElse(whole(1, HOUR_MS, "milliseconds"), 5000),
  /** Within this it answers, or is replaced. Default 2 s. */
  healthMs: orElse(whole(1, HOUR_MS, "milliseconds"), 2000),
  /** Pause after a failure, doubled with each further one and shortened by up to half at random. Default 200 ms. */
  backoffMs: orElse(whole(1, HOUR_MS, "milliseconds"), 200),
  /** The pause grows up to this. Default 30 s. */
  backoffMaxMs: orElse(whole(1, HOUR_MS, "milliseconds"), 30_000),
  /** Having failed for this long, it answers jobs with the failure instead of letting them wait. Default 10 s. */
  failFastMs: orElse(whole(0, HOUR_MS, "milliseconds"), 10_000),
  /** Memory of the arrival rate: a take this long ago still counts for 37 %. Default 30 s. */
  rateWindowMs: orElse(whole(1, 24 * HOUR_MS, "milliseconds"), 30_000),
  /** When fewer are needed, one is let go in each such period. Default 10 s. */
  shrinkMs: orElse(whole(1, 24 * HOUR_MS, "milliseconds"), 10_000),
  /** Size of the warm workspaces. Absent: the class's default limits, which is what a job gets that asks for nothing. */
  disk: Schema.optionalKey(
    Schema.Struct({ bytes: whole(65_536, 2 ** 50, "bytes"), inodes: whole(16, 100_000_000, "inodes") })
  ),
  /**
   * Which jobs a warm workspace, whose size is fixed, may serve. `exact`: those that asked for just this size, so that
   * a lowered limit is kept. `atLeast`: also those that asked for less; they may fill more than they asked for.
   * All others get a cold start. Default `exact`.
   */
  diskFit: orElse(Schema.Literals(["exact", "atLeast"]), "exact"),
  /** Absent: the class's ceiling of memory and cores, which no sandbox of it can exceed. Lower it to overcommit. */
  charge: Schema.optionalKey(PoolCharge)
}).check(
  Schema.makeFilter(({ backoffMaxMs, backoffMs, maximum, minimum }) =>
    minimum > maximum
      ? `minimum ${minimum} is above maximum ${maximum}`
      : backoffMs > backoffMaxMs
      ? `backoffMs ${backoffMs} is above backoffMaxMs ${backoffMaxMs}`
      : undefined
  )
)
export type PoolConfig = typeof PoolConfig.Type

/** All defaults. */
export const standardPool: PoolConfig = Schema.decodeSync(PoolConfig)({})
