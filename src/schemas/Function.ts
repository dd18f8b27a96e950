/** A named, typed definition of what can be run. CLI, doors and documentation are derived from it. */
import { Effect, Schema } from "effect"
import { FunctionName } from "./Ids.ts"
import type { Limits } from "./Limits.ts"
import type { Program } from "./Program.ts"

/** A function was asked for something it does not do. */
export class InvalidArguments extends Schema.TaggedError<InvalidArguments>()("InvalidArguments", {
  function: Schema.String,
  reason: Schema.String,
  remedy: Schema.String
}) {
  override get message() {
    return `${this.function}: ${this.reason}. ${this.remedy}`
  }
}

/** The limits a function's phases are built with: `compile` is the class's ceiling, `run` what the job resolved to. */
export interface PhaseLimits {
  readonly compile: Limits
  readonly run: Limits
}

/** What the registry holds: the arguments' type is bound inside, its Schema shown for help and documentation. */
export interface Definition {
  readonly name: FunctionName
  /** One sentence for help texts. */
  readonly description: string
  readonly args: Schema.Top
  /** Checks plain JSON arguments against `args` and makes the program. */
  readonly program: (args: unknown, limits: PhaseLimits) => Effect.Effect<Program, InvalidArguments>
}

/**
 * Names a function and binds its program to its arguments' type. A name that is none (`FunctionName`) throws where the
 * function is defined. `program` sees arguments that `args` has decoded; what is still wrong with them is an
 * `InvalidArguments`, and its job ends as `Rejected`.
 */
export const make = <Args, Encoded>(options: {
  readonly name: string
  /** One sentence for help texts, which goes on after the name. */
  readonly description: string
  readonly args: Schema.Codec<Args, Encoded>
  readonly program: (args: Args, limits: PhaseLimits) => Effect.Effect<Program, InvalidArguments>
}): Definition => {
  const decode = Schema.decodeUnknownEffect(options.args, { errors: "all" })
  return {
    ...options,
    name: FunctionName.make(options.name),
    program: (args, limits) =>
      decode(args).pipe(
        Effect.mapError((error) =>
          new InvalidArguments({
            function: options.name,
            reason: error.message.replaceAll("\n", " "),
            remedy: `${options.name} ${options.description}`
          })
        ),
        Effect.flatMap((decoded) => options.program(decoded, limits))
      )
  }
}
