/** The functions this worker offers, by name. */
import { Context, Effect, Layer } from "effect"
import { type Definition, InvalidArguments, type PhaseLimits } from "../../schemas/Function.ts"
import type { Job } from "../../schemas/Job.ts"
import type { Program } from "../../schemas/Program.ts"
import { distinct, type DuplicateName } from "../config/DuplicateName.ts"

/** What this worker can be asked to run. */
export class Functions extends Context.Service<Functions, {
  readonly definitions: ReadonlyArray<Definition>
  /** Checks the arguments and makes the program; unknown names and wrong arguments say what would be right. */
  readonly program: (job: Job, limits: PhaseLimits) => Effect.Effect<Program, InvalidArguments>
}>()("stoker/layers/functions/Functions") {}

/** These and no others. Fails when two have the same name. */
export const layer = (definitions: ReadonlyArray<Definition>): Layer.Layer<Functions, DuplicateName> =>
  Layer.effect(
    Functions,
    Effect.map(distinct("function", definitions), () => {
      const byName = new Map(definitions.map((definition) => [definition.name, definition]))
      return Functions.of({
        definitions,
        program: (job, limits) => {
          const found = byName.get(job.function)
          return found === undefined
            ? Effect.fail(
              new InvalidArguments({
                function: job.function,
                reason: "there is no such function",
                remedy: `Use one of: ${[...byName.keys()].join(", ")}.`
              })
            )
            : found.program(job.args, limits)
        }
      })
    })
  )
