/** The network of one sandbox: a namespace of the host with addresses, and rules that the job cannot change. */
import { type Effect, Schema } from "effect"
import type { InstanceId, SandboxId } from "../../schemas/Ids.ts"
import type { SandboxClass } from "../../schemas/SandboxClass.ts"
import type { Check } from "../sandbox/Sandbox.ts"

/** A sandbox got no network, or it is not yet gone: why, and what the operator can do about it. */
export class NetworkError extends Schema.TaggedError<NetworkError>()("NetworkError", {
  reason: Schema.String,
  remedy: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    return `${this.reason}. ${this.remedy}`
  }
}

/** What a runtime needs of a network that is up. */
export interface Attachment {
  /** The namespace, for any process of this host with our pids, whatever mounts it sees. */
  readonly path: string
  /** Its inode: what `/proc/<pid>/ns/net` of a process in it leads to. */
  readonly inode: number
  /** The sandbox's `/etc/resolv.conf`. */
  readonly resolvConf: string
}

/** A machine's network that is up: a namespace with a tap in it (`microvm/Vmm.ts` has its name and addresses). */
export interface MachineAttachment extends Attachment {
  /** There is a way out beyond the namespace. */
  readonly hasRoute: boolean
}

export interface SandboxNetwork {
  /** Makes what the row's id names, in place of what there may be of it. What fails half-way is for `release`. */
  readonly acquire: (id: SandboxId, sandboxClass: SandboxClass) => Effect.Effect<Attachment, NetworkError>
  /**
   * The same for a machine: also a tap for this user, and the host's end of it; no CNI network where the class's policy is
   * `none`. What the guest sends goes through the same policy, whatever address it claims.
   */
  readonly acquireMachine: (
    id: SandboxId,
    sandboxClass: SandboxClass,
    owner: { readonly uid: number; readonly gid: number }
  ) => Effect.Effect<MachineAttachment, NetworkError>
  /** Whether something may be there for this row: one look at a file. */
  readonly isHeld: (instance: InstanceId, id: SandboxId) => boolean
  /**
   * Removes all of it, when the sandbox's processes are dead. Fails if something is left, then it is to be tried again;
   * where nothing is, it succeeds.
   */
  readonly release: (instance: InstanceId, id: SandboxId) => Effect.Effect<void, NetworkError>
  /** What this host lacks for this class, with the fix. */
  readonly check: (sandboxClass: SandboxClass) => Effect.Effect<ReadonlyArray<Check>>
  /** The same for a class of machines, which need tools also where the policy is `none`. */
  readonly checkMachine: (sandboxClass: SandboxClass) => Effect.Effect<ReadonlyArray<Check>>
}
