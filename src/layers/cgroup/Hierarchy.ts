import type { Effect } from "effect"
import type { LimitNeed } from "../../schemas/Limits.ts"
import type { Cgroup, CgroupError } from "./Cgroup.ts"

/** Where instances may lie on one mounted hierarchy. */
export interface Root {
  readonly mountPoint: string
  /** The directory in which this worker's `stoker-<instance>` lies. */
  readonly base: string
}

/** What differs between the versions for one leaf; the rest of `Cgroup` is made of it once, in `Leaf.ts`. */
export interface LeafOperations
  extends
    Pick<Cgroup, "limit" | "usage" | "now" | "cpu" | "memory" | "pressure" | "resetPeak" | "pids" | "isEmpty" | "thaw">
{
  /** Asks for a freeze; `isFrozen` tells when it is done. */
  readonly freeze: Effect.Effect<void, CgroupError>
  readonly isFrozen: Effect.Effect<boolean, CgroupError>
  /** SIGKILL once to all that are seen. Not waited for; repeated until the group is empty. */
  readonly killOnce: Effect.Effect<void, CgroupError>
  /** Gives back what the handle's layer holds for the leaf, such as an open file. */
  readonly forget: Effect.Effect<void>
}

/** One version of cgroups on this host, ready to make instances. Lists of directories are in the order of `roots`. */
export interface Hierarchy {
  readonly version: "v1" | "v2"
  readonly roots: ReadonlyArray<Root>
  /** Makes new leaves of an instance able to hold limits; its directories exist. */
  readonly prepare: (instanceDirectories: ReadonlyArray<string>) => Effect.Effect<void, CgroupError>
  readonly leaf: (directories: ReadonlyArray<string>) => LeafOperations
  /** Whether leaves of a prepared instance hold this limit. */
  readonly holds: (need: LimitNeed, instanceDirectories: ReadonlyArray<string>) => Effect.Effect<boolean>
}
