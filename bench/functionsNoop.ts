/** The function of `functions.ts`: nothing but the way to it and back. */
import { Effect, Schema } from "effect"
import { Function } from "stoker"

export const nothing = Function.make({
  name: "nothing",
  description: "does nothing.",
  args: Schema.Struct({}),
  handler: () => Effect.void
})
