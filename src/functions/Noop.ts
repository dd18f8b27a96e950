/** `noop`: what runs when somebody wants nothing to run. */
import { Effect, Schema } from "effect"
import { make } from "../schemas/Function.ts"

/** No arguments. A Struct without fields alone would take anything that is not null. */
export const NoopArgs = Schema.Struct({}).check(
  Schema.makeFilter(
    (args: object) => typeof args === "object" && !Array.isArray(args) && Object.keys(args).length === 0,
    { expected: "no arguments", toJsonSchema: () => ({ type: "object", additionalProperties: false }) }
  )
).annotate({ title: "No arguments", description: "It takes none." })
export type NoopArgs = typeof NoopArgs.Type

/** Prints nothing and gives nothing back: shows that a worker works, and what a job costs that does nothing. */
export const noop = make({
  name: "noop",
  title: "Noop",
  description: "does nothing and prints nothing.",
  args: NoopArgs,
  handler: () => Effect.void
})
