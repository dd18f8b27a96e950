/** A named, typed definition of what can be run. CLI, doors and documentation are derived from it. */
import type { Effect } from "effect"
import { Schema } from "effect"
import type { FunctionName } from "./Ids.ts"
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

export interface Definition<Args extends Schema.Top = Schema.Top> {
  readonly name: FunctionName
  /** One sentence for help texts. */
  readonly description: string
  readonly args: Args
  readonly program: (args: Args["Type"], limits: PhaseLimits) => Effect.Effect<Program, InvalidArguments>
}

/** Names a function and binds its program to its arguments' type. */
export const make = <Args extends Schema.Codec<unknown, unknown>>(definition: Definition<Args>): Definition<Args> =>
  definition
