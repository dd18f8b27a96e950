/** What a job may use. Every field carries its unit in its name; every driver gives it the same meaning. */
import { Effect, Schema } from "effect"

const KiB = 1024
const MiB = 1024 * KiB
const GiB = 1024 * MiB

const between = (minimum: number, maximum: number, what: string) =>
  Schema.Int.check(Schema.isBetween({ minimum, maximum }, { expected: `${what} from ${minimum} to ${maximum}` }))

const fields = {
  /** Elapsed time of one phase, from its start to its end. */
  wallMs: between(10, 30 * 24 * 3_600_000, "milliseconds"),
  /** User plus system time of all processes of one phase, by the host's count. */
  cpuMs: between(10, 30 * 24 * 3_600_000, "milliseconds"),
  /** Anonymous memory, page cache and tmpfs (the workspace too) of all processes. No swap. */
  memoryBytes: between(4 * MiB, 4096 * GiB, "bytes"),
  /** Processes and threads alive at once. */
  pids: between(1, 1_000_000, "processes"),
  /** Cores: 0.5 is half of one. */
  cpus: Schema.Finite.check(
    Schema.isBetween({ minimum: 0.01, maximum: 1024 }, { expected: "cores from 0.01 to 1024" })
  ),
  /** One file's size (RLIMIT_FSIZE; over it the program gets SIGXFSZ). */
  fileBytes: between(4 * KiB, 4096 * GiB, "bytes"),
  /** The workspace with /tmp: a tmpfs of this size, so it counts as memory when filled. */
  diskBytes: between(64 * KiB, 4096 * GiB, "bytes"),
  /** Files and directories the workspace can hold. */
  diskInodes: between(16, 100_000_000, "inodes"),
  /** Kept output, for stdout and for stderr each. What lies beyond is cut from the middle, or ends the job. */
  outputBytes: between(1, 64 * GiB, "bytes"),
  /** Open files of one process. */
  openFiles: between(16, 1_048_576, "descriptors")
}

/** Over `outputBytes`: keep head and tail and go on, or end the job as `OutputExceeded`. */
export const OutputPolicy = Schema.Literals(["truncate", "kill"])
export type OutputPolicy = typeof OutputPolicy.Type

/** All limits of one phase, each with a value. */
export const Limits = Schema.Struct({ ...fields, outputPolicy: OutputPolicy })
export type Limits = typeof Limits.Type

/** What a job asks for: it may lower its class's limits, never raise them. Absent means the class's default. */
export const LimitsRequest = Schema.Struct({
  wallMs: Schema.optionalKey(fields.wallMs),
  cpuMs: Schema.optionalKey(fields.cpuMs),
  memoryBytes: Schema.optionalKey(fields.memoryBytes),
  pids: Schema.optionalKey(fields.pids),
  cpus: Schema.optionalKey(fields.cpus),
  fileBytes: Schema.optionalKey(fields.fileBytes),
  diskBytes: Schema.optionalKey(fields.diskBytes),
  diskInodes: Schema.optionalKey(fields.diskInodes),
  outputBytes: Schema.optionalKey(fields.outputBytes),
  openFiles: Schema.optionalKey(fields.openFiles),
  outputPolicy: Schema.optionalKey(OutputPolicy)
})
export type LimitsRequest = typeof LimitsRequest.Type

/** A job asked for more than its class gives. */
export class LimitAboveClass extends Schema.TaggedError<LimitAboveClass>()("LimitAboveClass", {
  limit: Schema.String,
  asked: Schema.Finite,
  ceiling: Schema.Finite
}) {
  override get message() {
    return `${this.limit} ${this.asked} is above the class's ${this.ceiling}: lower it, or ask for a larger sandbox class`
  }
}

const numeric = Object.keys(fields) as ReadonlyArray<keyof typeof fields>

/** The limits of one phase: the request where it says something, else the default; nothing above the ceiling. */
export const resolve = Effect.fnUntraced(function*(ceiling: Limits, defaults: Limits, request: LimitsRequest) {
  const over = numeric.find((name) => (request[name] ?? 0) > ceiling[name])
  if (over !== undefined) {
    return yield* new LimitAboveClass({ limit: over, asked: request[over] ?? 0, ceiling: ceiling[over] })
  }
  const resolved: Limits = { ...defaults, ...request }
  return resolved
})

/** What a sandbox class allows at most when the configuration does not say otherwise. */
export const standardCeiling: Limits = {
  wallMs: 120_000,
  cpuMs: 120_000,
  memoryBytes: 1 * GiB,
  pids: 256,
  cpus: 2,
  fileBytes: 512 * MiB,
  diskBytes: 512 * MiB,
  diskInodes: 65_536,
  outputBytes: 16 * MiB,
  openFiles: 1024,
  outputPolicy: "truncate"
}

/** What a job's run phase gets when neither job nor class says otherwise. */
export const standardDefaults: Limits = {
  wallMs: 10_000,
  cpuMs: 10_000,
  memoryBytes: 256 * MiB,
  pids: 64,
  cpus: 1,
  fileBytes: 64 * MiB,
  diskBytes: 512 * MiB,
  diskInodes: 65_536,
  outputBytes: 1 * MiB,
  openFiles: 256,
  outputPolicy: "truncate"
}
