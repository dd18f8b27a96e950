/** Where the executor gets a sandbox from: warm or cold is the pools' affair (`actors/Pools.ts`). */
import { Context, type Effect, type Scope } from "effect"
import type { LimitNotHeld, Limits } from "../../schemas/Limits.ts"
import type { SandboxClass } from "../../schemas/SandboxClass.ts"
import type { ProvisionFailed, Sandbox } from "./Sandbox.ts"

export class Sandboxes extends Context.Service<Sandboxes, {
  readonly take: (
    sandboxClass: SandboxClass,
    disk: { readonly bytes: number; readonly inodes: number }
  ) => Effect.Effect<Sandbox, ProvisionFailed, Scope.Scope>
  /** Fails for limits that a sandbox of this class would not hold: asked before one is taken. */
  readonly accepts: (sandboxClass: SandboxClass, limits: Limits) => Effect.Effect<void, LimitNotHeld>
}>()("stoker/layers/sandbox/Sandboxes") {}
