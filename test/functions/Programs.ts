/** Programs by the way every door goes: arguments as JSON, through `Functions`. */
import { Effect, Schema } from "effect"
import { code } from "../../src/functions/Code.ts"
import { command } from "../../src/functions/Command.ts"
import { Functions, layer } from "../../src/layers/functions/Functions.ts"
import { Job } from "../../src/schemas/Job.ts"
import { standardCeiling, standardDefaults } from "../../src/schemas/Limits.ts"
import type { Phase, Program } from "../../src/schemas/Program.ts"

export const limits = { compile: standardCeiling, run: standardDefaults }

/** What the function makes of these arguments, or its `InvalidArguments`. */
export const programOf = (name: "code" | "command", args: Schema.Json) =>
  Effect.gen(function*() {
    const functions = yield* Functions
    const job = yield* Effect.orDie(
      Schema.decodeEffect(Job)({ id: "1", owner: "local", intake: "embedded", function: name, args })
    )
    return yield* functions.program(job, limits)
  }).pipe(Effect.provide(layer([code, command])))

/** The refusal's whole text. Dies if the arguments were accepted. */
export const refusalOf = (name: "code" | "command", args: Schema.Json) =>
  programOf(name, args).pipe(Effect.flip, Effect.orDie, Effect.map((error) => error.message))

export const phase = (program: Program, name: Phase["name"]) => program.phases.find((phase) => phase.name === name)
export const argvOf = (program: Program, name: Phase["name"]) => phase(program, name)?.argv.join(" ")
