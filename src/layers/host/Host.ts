/** This worker on this machine: who it is, where it keeps its things, and who else is alive. */
import { Context, type Effect, Schema } from "effect"
import type { InstanceId } from "../../schemas/Ids.ts"

/** This machine could not do something, or lacks it. */
export class HostError extends Schema.TaggedError<HostError>()("HostError", {
  operation: Schema.String,
  reason: Schema.String,
  remedy: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    return `${this.operation}: ${this.reason}. ${this.remedy}`
  }
}

/** Paths below the state directory. Everything of one sandbox lies below its instance. */
export interface HostPaths {
  readonly state: string
  /** `<state>/journal.sqlite` */
  readonly journal: string
  /** `<state>/logs` */
  readonly logs: string
  /** `<state>/artefacts`: one file per job that left some. */
  readonly artefacts: string
  /** `<state>/ledger`: one file per row. */
  readonly ledger: string
  /** `<state>/instances/<instance>`: the lock and everything that dies with the instance. */
  readonly instance: (instance: InstanceId) => string
}

/** This worker's place on this machine. */
export class Host extends Context.Service<Host, {
  readonly instance: InstanceId
  readonly paths: HostPaths
  /**
   * Whether an instance is alive: it holds a listening socket in its directory, which the kernel closes at its death,
   * whatever the death was.
   */
  readonly isAlive: (instance: InstanceId) => Effect.Effect<boolean>
  /** Instances that have a directory here, dead or alive, without ourselves. */
  readonly others: Effect.Effect<ReadonlyArray<InstanceId>, HostError>
  /** Where an instance's cgroups are, as it wrote down; empty if it never made a sandbox. */
  readonly cgroupsOf: (instance: InstanceId) => Effect.Effect<ReadonlyArray<string>>
  /** Removes a dead instance's directory. */
  readonly forget: (instance: InstanceId) => Effect.Effect<void, HostError>
}>()("stoker/layers/host/Host") {}
