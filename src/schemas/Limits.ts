/**
 * What a job may use. Every field carries its unit in its name; every driver gives it the same meaning. What a driver or
 * host cannot hold is refused, never left out: see `needsOf`.
 */
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

/** A rate on each block device of the class (all disks of the host, if it names none). */
const rate = (what: string) => between(1, 2 ** 50, what)

/** Limits that are in force only where they are given; what their absence means stands at each. */
const extras = {
  /** Share of the cores while they are scarce, to that of other jobs. Absent: 100. */
  cpuWeight: between(1, 10_000, "shares"),
  /** Above this its processes are slowed down and their memory is reclaimed, before `memoryBytes` kills. Absent: none. */
  memoryHighBytes: between(4 * MiB, 4096 * GiB, "bytes"),
  /** Swap on top of `memoryBytes`. Absent: none. */
  swapBytes: between(0, 4096 * GiB, "bytes"),
  /** Out of memory ends the whole job at once, not only the process that the kernel chooses. Absent: false. */
  oomGroup: Schema.Boolean,
  /** Share of each block device while it is busy, to that of other jobs. Absent: 100. */
  ioWeight: between(1, 10_000, "shares"),
  ioReadBytesPerSec: rate("bytes a second"),
  ioWriteBytesPerSec: rate("bytes a second"),
  ioReadsPerSec: rate("operations a second"),
  ioWritesPerSec: rate("operations a second")
}

const optional = {
  cpuWeight: Schema.optionalKey(extras.cpuWeight),
  memoryHighBytes: Schema.optionalKey(extras.memoryHighBytes),
  swapBytes: Schema.optionalKey(extras.swapBytes),
  oomGroup: Schema.optionalKey(extras.oomGroup),
  ioWeight: Schema.optionalKey(extras.ioWeight),
  ioReadBytesPerSec: Schema.optionalKey(extras.ioReadBytesPerSec),
  ioWriteBytesPerSec: Schema.optionalKey(extras.ioWriteBytesPerSec),
  ioReadsPerSec: Schema.optionalKey(extras.ioReadsPerSec),
  ioWritesPerSec: Schema.optionalKey(extras.ioWritesPerSec)
}

/** Over `outputBytes`: keep head and tail and go on, or end the job as `OutputExceeded`. */
export const OutputPolicy = Schema.Literals(["truncate", "kill"])
export type OutputPolicy = typeof OutputPolicy.Type

/** All limits of one phase: the usual ones each with a value, the others where they are in force. */
export const Limits = Schema.Struct({ ...fields, ...optional, outputPolicy: OutputPolicy })
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
  ...optional,
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

type Rate = "ioReadBytesPerSec" | "ioWriteBytesPerSec" | "ioReadsPerSec" | "ioWritesPerSec"
const rates: ReadonlyArray<Rate> = ["ioReadBytesPerSec", "ioWriteBytesPerSec", "ioReadsPerSec", "ioWritesPerSec"]

/** A limit that the job's driver or this host cannot hold. */
export class LimitNotHeld extends Schema.TaggedError<LimitNotHeld>()("LimitNotHeld", {
  limit: Schema.String,
  reason: Schema.String,
  remedy: Schema.String
}) {
  override get message() {
    return `${this.limit} cannot be held: ${this.reason}`
  }
}

const usual = Object.keys(fields) as ReadonlyArray<keyof typeof fields>
const numeric = [...usual, "cpuWeight", "memoryHighBytes", "swapBytes", "ioWeight", ...rates] as const

/** What a class allows that does not say: a job may not take more than its share, nor swap. */
const impliedCeiling: Partial<Record<typeof numeric[number], number>> = { cpuWeight: 100, ioWeight: 100, swapBytes: 0 }

/** The limits of one phase: the request where it says something, else the default; nothing above the ceiling. */
export const resolve = Effect.fnUntraced(function*(ceiling: Limits, defaults: Limits, request: LimitsRequest) {
  for (const name of numeric) {
    const most = ceiling[name] ?? impliedCeiling[name]
    const asked = request[name] ?? 0
    if (most !== undefined && asked > most) return yield* new LimitAboveClass({ limit: name, asked, ceiling: most })
  }
  // A rate without a value is no limit at all, which is above any ceiling.
  const bounds = Object.fromEntries(rates.flatMap((name) => ceiling[name] === undefined ? [] : [[name, ceiling[name]]]))
  const resolved: Limits = { ...bounds, ...defaults, ...request }
  return resolved
})

/** What a sandbox must be able to do beyond the usual limits, for these ones. */
export const limitNeeds = ["cpu-weight", "memory-high", "swap", "oom-group", "io-weight", "io-max"] as const
/** One of them, by its name. */
export type LimitNeed = (typeof limitNeeds)[number]

/** Needs of limits, each with the field that asks for it. A value that means what its absence means asks for nothing. */
export const needsOf = (limits: Limits): ReadonlyMap<LimitNeed, keyof Limits> => {
  const needs = new Map<LimitNeed, keyof Limits>()
  if ((limits.cpuWeight ?? 100) !== 100) needs.set("cpu-weight", "cpuWeight")
  if (limits.memoryHighBytes !== undefined) needs.set("memory-high", "memoryHighBytes")
  if ((limits.swapBytes ?? 0) > 0) needs.set("swap", "swapBytes")
  if (limits.oomGroup === true) needs.set("oom-group", "oomGroup")
  if ((limits.ioWeight ?? 100) !== 100) needs.set("io-weight", "ioWeight")
  const rate = rates.find((name) => limits[name] !== undefined)
  if (rate !== undefined) needs.set("io-max", rate)
  return needs
}

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
