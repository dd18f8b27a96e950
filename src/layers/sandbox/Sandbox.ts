/** The contract every driver fulfils: one isolated place for one program, then it is destroyed. */
import { Context, Effect, Schema, type Scope, type Stream } from "effect"
import type { SandboxId } from "../../schemas/Ids.ts"
import type { LimitNeed, LimitNotHeld, Limits } from "../../schemas/Limits.ts"
import type { StreamName } from "../../schemas/Outcome.ts"
import type { Phase, PhaseName, ProgramFile, Source, WorkPath } from "../../schemas/Program.ts"
import type { DriverName, SandboxClass } from "../../schemas/SandboxClass.ts"
import type { Observation, PhaseUsage } from "../../schemas/Usage.ts"
import type { LedgerRow } from "../ledger/Ledger.ts"

/** No sandbox could be made: at which step, and what the operator can do about it. */
export class ProvisionFailed extends Schema.TaggedError<ProvisionFailed>()("ProvisionFailed", {
  driver: Schema.String,
  step: Schema.Literals(["driver", "ledger", "cgroup", "image", "network", "start", "ready"]),
  reason: Schema.String,
  remedy: Schema.String,
  /** It will be so until somebody mends it, as with every failure of the step `driver`: jobs are told instead of waiting. */
  isLasting: Schema.optionalKey(Schema.Boolean),
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    return `${this.driver} made no sandbox (${this.step}): ${this.reason}. ${this.remedy}`
  }
}

/** A sandbox that was there is not any more, or answers nonsense. */
export class SandboxLost extends Schema.TaggedError<SandboxLost>()("SandboxLost", {
  driver: Schema.String,
  reason: Schema.String,
  remedy: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    return `${this.driver} lost its sandbox: ${this.reason}. ${this.remedy}`
  }
}

/** The sandbox refused one request and is still well: a path outside the workspace, a full disk, no such program. */
export class SandboxRefused extends Schema.TaggedError<SandboxRefused>()("SandboxRefused", {
  operation: Schema.Literals(["put", "run", "get", "signal", "limit", "measure"]),
  /** Linux errno, e.g. 2 for ENOENT, 28 for ENOSPC. */
  errno: Schema.Int,
  reason: Schema.String
}) {
  override get message() {
    return `${this.operation} refused: ${this.reason}`
  }
}

/** How a phase ended, as the kernel told the guest. */
export type PhaseExit =
  | { readonly _tag: "Exited"; readonly code: number }
  | { readonly _tag: "Signalled"; readonly signal: number }

/** What happens while a phase runs, in order. */
export type PhaseEvent =
  /** `phase`: of a `source`, which part of it the following is of. */
  | { readonly _tag: "Started"; readonly phase?: PhaseName }
  | { readonly _tag: "Output"; readonly stream: StreamName; readonly bytes: Uint8Array }
  | { readonly _tag: "Ended"; readonly exit: PhaseExit; readonly usage: PhaseUsage }

/** What is being used now, from the host's side. Absent where the driver cannot tell. */
export interface Measurement {
  readonly cpuMicros?: number
}

/** What an image runs unless somebody says otherwise. */
export interface ImageRun {
  readonly entrypoint: ReadonlyArray<string>
  readonly arguments: ReadonlyArray<string>
}

/** One place for one program. Its scope is its life: closing it removes all that was made for it. */
export interface Sandbox {
  readonly id: SandboxId
  readonly driver: DriverName
  /** Where people find its counters on the host, e.g. the cgroup's path. */
  readonly place: string
  /** Where its root is an image: what that runs by itself. Absent: not known. */
  readonly imageRun?: ImageRun
  /** Writes files into the workspace, as the job's user. */
  readonly put: (files: ReadonlyArray<ProgramFile>) => Effect.Effect<void, SandboxLost | SandboxRefused>
  /** Writes one file as its bytes come, a mebibyte in memory at most, as the job's user. Absent: there are only whole ones. */
  readonly putStream?: <E>(
    path: WorkPath,
    bytes: Stream.Stream<Uint8Array, E>
  ) => Effect.Effect<void, SandboxLost | SandboxRefused | E>
  /**
   * Runs one phase under its limits; ends with exactly one `Ended`, sent when none of the phase's processes is alive
   * and every byte they wrote has been given. Wall time, CPU time and output are the executor's to watch.
   */
  readonly run: (phase: Phase) => Stream.Stream<PhaseEvent, SandboxLost | SandboxRefused>
  /**
   * Runs a phase that is a call (`Program.call`), as `run` does: its program is the function host, which takes `invocation`
   * (`guest/Invocation.ts`) for its input. One that waits here is used if the phase's limits let it; its wall and CPU time
   * count from now. Absent: there is no function host.
   */
  readonly call?: (phase: Phase, invocation: Uint8Array) => Stream.Stream<PhaseEvent, SandboxLost | SandboxRefused>
  /**
   * A sandbox that takes a whole job as one source file (`Program.source`) and nothing else: `put`, `run` and `get` are of no
   * use in it. It is compiled and run under `phase`'s limits. First comes a `Started` that says how far that came, `compile`
   * or `run`: what follows is of that, and so is the usage in `Ended`, whose exit is the job's. Absent: `run` does all.
   */
  readonly source?: (phase: Phase, source: Source) => Stream.Stream<PhaseEvent, SandboxLost | SandboxRefused>
  /** A signal for the phase's main process with the group that it leads (`main`), or for all of its processes. */
  readonly signal: (signal: number, scope: "main" | "all") => Effect.Effect<void, SandboxLost | SandboxRefused>
  /**
   * Kills everything inside from the host, at once, without asking the guest. The sandbox is lost by it. A phase under way
   * fails as lost too, or ends with signal 9 and what it used, where the host's counters still tell.
   */
  readonly kill: Effect.Effect<void>
  /** Ends, at once and with the reason, when the sandbox is lost; never while it is well. Absent: one has to ask. */
  readonly lost?: Effect.Effect<SandboxLost>
  readonly measure: Effect.Effect<Measurement>
  /** Absent: no more is known than `measure` tells. */
  readonly observe?: Effect.Effect<Observation>
  /** Reads one regular file of the workspace after the phases, up to `maximum` bytes. */
  readonly get: (path: WorkPath, maximum: number) => Effect.Effect<Uint8Array, SandboxLost | SandboxRefused>
  /** One regular file of the workspace after the phases, piece by piece. Absent: there are only whole ones. */
  readonly getStream?: (path: WorkPath) => Stream.Stream<Uint8Array, SandboxLost | SandboxRefused>
}

/** What a job may need of a driver. A job that needs what a driver lacks is rejected, never weakened. */
export type Capability =
  | "isolation"
  | "memory-limit"
  | "cpu-limit"
  | "pids-limit"
  | "disk-limit"
  | "usage"
  /** The CPU time it tells is the program's own, without that of a kernel or a processor inside the sandbox. */
  | "own-cpu"
  /** The workspace lies in memory, and counts as such. */
  | "memory-workspace"
  /** Where its class has no network, a sandbox has no device but a loopback: not even one that leads nowhere. */
  | "loopback-only"
  | LimitNeed

/** One line of `stoker doctor`. */
export interface Check {
  readonly name: string
  readonly status: "ok" | "warning" | "missing"
  readonly detail: string
  /** What to type or change; absent when all is well. */
  readonly remedy?: string
}

/** Makes sandboxes of one kind. */
export interface Driver {
  readonly name: DriverName
  readonly capabilities: ReadonlySet<Capability>
  /**
   * What all sandboxes of a class need once and what may take minutes, such as an image: no part of the time that making
   * one of them may take. Comes back at once when it is there. Absent: there is no such thing.
   */
  readonly prepare?: (sandboxClass: SandboxClass) => Effect.Effect<void, ProvisionFailed>
  /** A sandbox of this class whose workspace holds `diskBytes`; ready when it comes back. */
  readonly provision: (
    sandboxClass: SandboxClass,
    disk: { readonly bytes: number; readonly inodes: number }
  ) => Effect.Effect<Sandbox, ProvisionFailed, Scope.Scope>
  /** Fails for limits that would not be held in a sandbox of this class. Absent: `capabilities` tell. */
  readonly accepts?: (sandboxClass: SandboxClass, limits: Limits) => Effect.Effect<void, LimitNotHeld>
  /**
   * Removes what a dead worker's row names, in this order: processes, network, mounts, cgroups, files. True once all of
   * it is proven gone; false or a slow kernel leaves the row for the next round. Never called for a live instance.
   */
  readonly reap: (row: LedgerRow) => Effect.Effect<boolean>
  /**
   * Names the root file system of the class with every compiler in it: another one, another name. Fails when it cannot be
   * told. Absent: nothing that is compiled in this driver's sandboxes may be kept for the next one.
   */
  readonly rootIdentity?: (sandboxClass: SandboxClass) => Effect.Effect<string, ProvisionFailed>
  /** What this host lacks for this driver, with the fix for each gap. Changes nothing that lasts. */
  readonly check: Effect.Effect<ReadonlyArray<Check>>
  /** What it lacks for one class beyond that. Absent: nothing depends on the class. */
  readonly checkClass?: (sandboxClass: SandboxClass) => Effect.Effect<ReadonlyArray<Check>>
}

/** Removes what rows of one driver name. */
export type Reap = Driver["reap"]

/**
 * For rows of drivers that none of this worker's classes names: a dead worker of this host had other classes. Nothing for a driver
 * that this version does not know.
 */
export const Reapers = Context.Reference<(name: DriverName) => Effect.Effect<Reap | undefined>>(
  "stoker/layers/sandbox/Reapers",
  { defaultValue: () => () => Effect.undefined }
)

/** All drivers this worker was built with. The classes choose among them by name. */
export class Drivers extends Context.Service<Drivers, ReadonlyArray<Driver>>()("stoker/layers/sandbox/Drivers") {}
