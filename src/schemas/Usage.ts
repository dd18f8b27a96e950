/** What a job used, measured from the host. What a driver or kernel cannot measure is absent, not zero. */
import { Schema } from "effect"
import { PhaseName } from "./Program.ts"

/** Time in which at least one of its processes could not go on for want of something (PSI "some"). Microseconds. */
export const Pressure = Schema.Struct({
  cpuMicros: Schema.optionalKey(Schema.Natural),
  memoryMicros: Schema.optionalKey(Schema.Natural),
  ioMicros: Schema.optionalKey(Schema.Natural)
})
export type Pressure = typeof Pressure.Type

/** What one phase used. Times are microseconds. */
export const PhaseUsage = Schema.Struct({
  phase: PhaseName,
  /** Elapsed, by the host's monotonic clock. */
  wallMicros: Schema.Natural,
  /** User plus system time of all its processes. */
  cpuMicros: Schema.optionalKey(Schema.Natural),
  cpuUserMicros: Schema.optionalKey(Schema.Natural),
  cpuSystemMicros: Schema.optionalKey(Schema.Natural),
  /**
   * Peak of the whole sandbox's memory while the phase ran: anonymous, tmpfs, and the page cache it filled itself (not
   * what a compile phase before it had read). About 1.5 MiB of it are the runtime's and the guest's.
   */
  memoryPeakBytes: Schema.optionalKey(Schema.Natural),
  /**
   * The parts of that peak: memory of the processes, and page cache with tmpfs (workspace, /tmp, shared memory). The kernel
   * keeps no peaks of them. Each is the largest that was seen, by samples and by what was left at the end, so they need not
   * add up to the whole; what was there for less than a sample's time may be missing.
   */
  memoryAnonPeakBytes: Schema.optionalKey(Schema.Natural),
  memoryFilePeakBytes: Schema.optionalKey(Schema.Natural),
  /** Peak number of the job's processes and threads. */
  pidsPeak: Schema.optionalKey(Schema.Natural),
  /** Processes and threads it was refused at its limit. */
  pidsRefused: Schema.optionalKey(Schema.Natural),
  /** Bytes to and from block devices, written back ones too. Its workspace is memory and not counted. */
  ioReadBytes: Schema.optionalKey(Schema.Natural),
  ioWriteBytes: Schema.optionalKey(Schema.Natural),
  pressure: Schema.optionalKey(Pressure),
  /** Time the CPU limit held the phase back. */
  throttledMicros: Schema.optionalKey(Schema.Natural),
  /** What it wrote, kept or not: where the next phase's output begins in the job's streams. */
  stdoutBytes: Schema.optionalKey(Schema.Natural),
  stderrBytes: Schema.optionalKey(Schema.Natural),
  /** Processes the kernel killed for want of memory. */
  oomKills: Schema.optionalKey(Schema.Natural),
  /** The first of them: its name, as the kernel's log has it. */
  oomVictim: Schema.optionalKey(Schema.String),
  /** Nothing was compiled: its product came out of the compile cache, and what it wrote then was written again. */
  cached: Schema.optionalKey(Schema.Boolean)
})
export type PhaseUsage = typeof PhaseUsage.Type

/** All that can be said of a sandbox now, for people who look. Absent is what cannot be told. */
export const Observation = Schema.Struct({
  cpuMicros: Schema.optionalKey(Schema.Natural),
  memoryBytes: Schema.optionalKey(Schema.Natural),
  /** Memory of its processes; page cache and tmpfs. */
  memoryAnonBytes: Schema.optionalKey(Schema.Natural),
  memoryFileBytes: Schema.optionalKey(Schema.Natural),
  pids: Schema.optionalKey(Schema.Natural),
  throttledMicros: Schema.optionalKey(Schema.Natural),
  ioReadBytes: Schema.optionalKey(Schema.Natural),
  ioWriteBytes: Schema.optionalKey(Schema.Natural),
  /** Part of the last ten seconds in which some of its processes waited for it, 0 to 1 (PSI "some avg10"). */
  pressure: Schema.optionalKey(Schema.Struct({
    cpu: Schema.optionalKey(Schema.Finite),
    memory: Schema.optionalKey(Schema.Finite),
    io: Schema.optionalKey(Schema.Finite)
  }))
})
export type Observation = typeof Observation.Type

/** What a job used, waiting for its turn included. Times are microseconds. */
export const Usage = Schema.Struct({
  /** From the worker's receipt to the claim. */
  queuedMicros: Schema.optionalKey(Schema.Natural),
  /** Claiming the job in the journal. */
  claimMicros: Schema.optionalKey(Schema.Natural),
  /** From the request for a sandbox until it was ready. */
  provisionMicros: Schema.optionalKey(Schema.Natural),
  phases: Schema.Array(PhaseUsage)
})
export type Usage = typeof Usage.Type

/** Nothing ran. */
export const noUsage: Usage = { phases: [] }
