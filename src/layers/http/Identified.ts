/** Who asks: found out once for each request, before anything else is looked at. */
import { Context, Effect, Result } from "effect"
import type { Caller } from "../../schemas/Access.ts"
import type { Unauthenticated } from "../api/Fault.ts"

const nobody: Unauthenticated = {
  _tag: "Unauthenticated",
  reason: "nobody was identified",
  remedy: "Connect with a certificate that the worker's authority signed."
}

/** The caller of the request in hand. */
export const Identified = Context.Reference<Result.Result<Caller, Unauthenticated>>("stoker/layers/http/Identified", {
  defaultValue: () => Result.fail(nobody)
})

/** The caller, or that it is none. */
export const identified: Effect.Effect<Caller, Unauthenticated> = Effect.flatMap(Identified, Effect.fromResult)
