/** Who may do what. */
import { Context, type Effect } from "effect"
import type { Caller, Method, Right } from "../../schemas/Access.ts"

/** The rights of callers. */
export class Access extends Context.Service<Access, {
  readonly right: (caller: Caller, method: Method) => Effect.Effect<Right>
}>()("stoker/layers/api/Access") {}
