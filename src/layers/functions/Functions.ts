/** The functions this worker offers, by name. */
import { Context, Effect, Layer, Schema } from "effect"
import { type Definition, InvalidArguments, type PhaseLimits } from "../../schemas/Function.ts"
import type { Job } from "../../schemas/Job.ts"
import type { Program } from "../../schemas/Program.ts"

export class Functions extends Context.Service<Functions, {
  readonly definitions: ReadonlyArray<Definition>
  /** Checks the arguments and makes the program; unknown names and wrong arguments say what would be right. */
  readonly program: (job: Job, limits: PhaseLimits) => Effect.Effect<Program, InvalidArguments>
}>()("stoker/layers/functions/Functions") {}

export const layer = (definitions: ReadonlyArray<Definition>) =>
  Layer.sync(Functions, () => {
    const byName = new Map(
      definitions.map((definition) =>
        [definition.name, {
          definition,
          decode: Schema.decodeUnknownEffect(definition.args as Schema.Codec<unknown, unknown>, { errors: "all" })
        }] as const
      )
    )
    const program = Effect.fnUntraced(function*(job: Job, limits: PhaseLimits) {
      const found = byName.get(job.function)
      if (found === undefined) {
        return yield* new InvalidArguments({
          function: job.function,
          reason: "there is no such function",
          remedy: `Use one of: ${[...byName.keys()].join(", ")}.`
        })
      }
      const args = yield* found.decode(job.args).pipe(
        Effect.mapError((error) =>
          new InvalidArguments({
            function: job.function,
            reason: error.message.replaceAll("\n", " "),
            remedy: `${job.function}: ${found.definition.description}`
          })
        )
      )
      return yield* found.definition.program(args, limits)
    })
    return Functions.of({ definitions, program })
  })
