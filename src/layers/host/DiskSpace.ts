/** How much room is left for what a worker writes. */
import { Context, type Effect } from "effect"
import type { HostError } from "./Host.ts"

export class DiskSpace extends Context.Service<DiskSpace, {
  /** Bytes that this user may still write below the state directory. */
  readonly free: Effect.Effect<number, HostError>
}>()("stoker/layers/host/DiskSpace") {}
