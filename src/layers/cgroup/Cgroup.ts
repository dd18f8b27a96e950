import { Context, type Duration, type Effect, type Option, Schema } from "effect"
import type { LimitNeed } from "../../schemas/Limits.ts"

/** A call on cgroupfs failed: which, on what path, why, and what to do. `code` is the errno's name when it was one. */
export class CgroupError extends Schema.TaggedError<CgroupError>()("CgroupError", {
  operation: Schema.String,
  path: Schema.String,
  reason: Schema.String,
  remedy: Schema.String,
  code: Schema.optionalKey(Schema.String),
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    return `cgroup ${this.operation} of ${this.path}: ${this.reason}; ${this.remedy}`
  }
}

/** This host, or this user on it, cannot hold groups in limits. `missing` names the controllers, if that is the reason. */
export class CgroupUnavailable extends Schema.TaggedError<CgroupUnavailable>()("CgroupUnavailable", {
  missing: Schema.Array(Schema.String),
  reason: Schema.String,
  remedy: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    return `no usable cgroups: ${this.reason}; ${this.remedy}`
  }
}

/** Rates on each of the devices. What is left out of an `IoMax` that is given is without limit. */
export interface IoMax {
  /** `MAJOR:MINOR` of whole block devices. */
  readonly devices: ReadonlyArray<string>
  readonly readBytesPerSec?: number | undefined
  readonly writeBytesPerSec?: number | undefined
  readonly readsPerSec?: number | undefined
  readonly writesPerSec?: number | undefined
}

/** Limits of one group. What is left out stays as it is; `Infinity` lifts a limit. */
export interface CgroupLimits {
  /** RAM in bytes: anonymous memory, page cache, tmpfs and kernel memory of the group. */
  readonly memoryBytes?: number | undefined
  /** Swap in bytes on top of `memoryBytes`; 0 when only `memoryBytes` is given. */
  readonly swapBytes?: number | undefined
  /** Processes and threads. */
  readonly pids?: number | undefined
  /** Cores: 0.5 is half a core in every 100 ms. */
  readonly cpus?: number | undefined
  /** Share when cores are scarce, 1 to 10000; 100 is what a group has by default. */
  readonly cpuWeight?: number | undefined
  /** Above this the group is slowed down and its memory reclaimed. v2. */
  readonly memoryHighBytes?: number | undefined
  /** Out of memory kills all of the group. v2. */
  readonly oomGroup?: boolean | undefined
  /** Share of a device while it is busy, 1 to 10000; 100 by default. v2, with BFQ or io.cost. */
  readonly ioWeight?: number | undefined
  /** v1 sees direct and synchronous writes only, not those the kernel writes back later. */
  readonly ioMax?: IoMax | undefined
  /** Cores by number, `0-3,8`. Set before anybody enters. */
  readonly cpuset?: string | undefined
}

/** What the kernel counted since the group was made. Absent is what this kernel does not tell; it is never 0 instead. */
export interface CgroupUsage {
  readonly cpuMicros: number
  readonly cpuUserMicros?: number | undefined
  readonly cpuSystemMicros?: number | undefined
  /** Time in which the group wanted to run and its `cpus` limit did not let it. */
  readonly throttledMicros?: number | undefined
  /** Includes page cache and tmpfs: a program that writes much has a high peak, up to its limit. */
  readonly memoryPeakBytes?: number | undefined
  readonly pidsPeak?: number | undefined
  /** How many forks and threads the `pids` limit refused. */
  readonly pidsMaxHits?: number | undefined
  /** Processes killed for want of memory: the only proof, exit codes are not. */
  readonly oomKills?: number | undefined
  readonly ioReadBytes?: number | undefined
  readonly ioWriteBytes?: number | undefined
  /** Time in which some of its processes waited for it (PSI "some"). v2. */
  readonly cpuPressureMicros?: number | undefined
  readonly memoryPressureMicros?: number | undefined
  readonly ioPressureMicros?: number | undefined
}

/** What a group uses at this moment. */
export interface CgroupNow {
  readonly cpuMicros: number
  readonly memoryBytes?: number | undefined
  readonly pids?: number | undefined
}

/** Part of the last ten seconds in which some of its processes waited, 0 to 1 (PSI "some avg10"). */
export interface CgroupPressure {
  readonly cpu?: number | undefined
  readonly memory?: number | undefined
  readonly io?: number | undefined
}

/** What its memory is, at this moment. The kernel adds it up for who asks, which is not cheap. */
export interface CgroupMemory {
  /** Memory of the processes themselves. */
  readonly anonBytes?: number | undefined
  /** Page cache, tmpfs not counted: the kernel may drop it at any time, and other groups profit from it too. */
  readonly cacheBytes?: number | undefined
  readonly tmpfsBytes?: number | undefined
}

/**
 * One leaf, for the processes of one sandbox. A handle holds nothing: the group lives in the kernel until `remove`.
 * Every member may be used after the group is gone: `kill` and `remove` succeed, `pids` is empty, the others fail.
 */
export interface Cgroup {
  /** For people and job status: the directory of the memory controller on v1, the only one on v2. */
  readonly path: string
  /** Write "0" to each of them to enter the group: one per controller on v1, one on v2. */
  readonly procsFiles: ReadonlyArray<string>
  /**
   * Sets limits, any number of times. Fails, and changes no memory limit, if the processes hold more memory than the
   * new limit (`code` "EBUSY"); fails rather than leave out a limit that this kernel cannot hold.
   */
  readonly limit: (limits: CgroupLimits) => Effect.Effect<void, CgroupError>
  readonly usage: Effect.Effect<CgroupUsage, CgroupError>
  readonly now: Effect.Effect<CgroupNow, CgroupError>
  /** CPU time used so far, in microseconds: one file is read. */
  readonly cpu: Effect.Effect<number, CgroupError>
  readonly memory: Effect.Effect<CgroupMemory, CgroupError>
  /** Empty where the kernel does not tell. */
  readonly pressure: Effect.Effect<CgroupPressure, CgroupError>
  /** Lets `memoryPeakBytes` begin again at what is used now; false if this kernel cannot (v2 before Linux 6.12). */
  readonly resetPeak: Effect.Effect<boolean>
  /** Processes here and below. One of an outer pid namespace has no number and is left out; `isEmpty` counts it. */
  readonly pids: Effect.Effect<ReadonlyArray<number>, CgroupError>
  /** SIGKILL to every process here and below, forks included. Ends within a second; fails naming the pids that stay. */
  readonly kill: Effect.Effect<void, CgroupError>
  /** Stops every process until `thaw`. A frozen group can be killed. Fails where v1 has no freezer controller. */
  readonly freeze: Effect.Effect<void, CgroupError>
  readonly thaw: Effect.Effect<void, CgroupError>
  readonly isEmpty: Effect.Effect<boolean, CgroupError>
  /** True as soon as no process is left, false if one still is after `timeout`. */
  readonly awaitEmpty: (timeout: Duration.Input) => Effect.Effect<boolean, CgroupError>
  /** Removes the group if nobody is in it, which the kernel then has proven; false if somebody is, or is leaving. */
  readonly dissolve: Effect.Effect<boolean, CgroupError>
  /** Removes the group and empty groups below it, on every controller; what is already gone is a success. */
  readonly remove: Effect.Effect<void, CgroupError>
}

/** The groups of one worker instance: `stoker-<instance>` and its leaves. */
export interface CgroupInstance {
  /** The directories of `stoker-<instance>`: one per controller on v1, one on v2. */
  readonly directories: ReadonlyArray<string>
  /** Names of the leaves that have a directory on any controller. */
  readonly leaves: Effect.Effect<ReadonlyArray<string>, CgroupError>
  /** The leaf of that name, whether or not it exists. Of a name that `make` would refuse, every operation fails. */
  readonly open: (name: string) => Cgroup
  /** Removes `stoker-<instance>` itself. Fails if it has leaves; what is already gone is a success. */
  readonly remove: Effect.Effect<void, CgroupError>
}

/**
 * Control groups of this host, v1 or v2, in one interface.
 *
 * Names of instances and leaves are 1 to 100 of `A-Z a-z 0-9 . _ -`, beginning with a letter or digit, so that no path
 * escapes. The instance name "worker" is taken: on v2 the worker itself may have to live in `stoker-worker`.
 */
export class Cgroups extends Context.Service<Cgroups, {
  /** What owns the memory, pids and cpu controllers here. A hybrid host is "v1". */
  readonly version: "v1" | "v2"
  /** Where a v2 hierarchy beside v1 still offers a controller: crun refuses to run where it sees that. */
  readonly hybridMount: Option.Option<string>
  /** Which of the further limits are held here, on every device that limits of I/O are for. */
  readonly holds: ReadonlySet<LimitNeed>
  /** For those that are not: why, and what to do. */
  readonly lacks: (need: LimitNeed) => { readonly reason: string; readonly remedy: string }
  /**
   * A fresh leaf of this instance; an existing one is an error. Not scoped: register `open(name).remove` before, since
   * a `make` that fails half-way leaves directories on some controllers.
   */
  readonly make: (name: string) => Effect.Effect<Cgroup, CgroupError>
  readonly open: (name: string) => Cgroup
  readonly directories: ReadonlyArray<string>
  readonly removeInstance: Effect.Effect<void, CgroupError>
  /**
   * Names of all instances with a directory where ours is. A name proves nothing: another container's worker may be
   * among them. Touch only what a ledger and a free lock say is ours.
   */
  readonly instances: Effect.Effect<ReadonlyArray<string>, CgroupError>
  /**
   * Another instance's groups. `recorded` is what its `directories` were: a worker that was started from another cgroup
   * has them elsewhere. Paths that cannot be a `stoker-<instance>` on a mounted hierarchy are left out.
   */
  readonly forInstance: (instance: string, recorded?: ReadonlyArray<string>) => CgroupInstance
}>()("stoker/layers/cgroup/Cgroups") {}
