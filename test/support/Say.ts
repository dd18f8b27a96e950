/** The function of tests whose jobs need only be one: what it would run, no test of these runs. */
import { Effect, Schema } from "effect"
import * as Function from "../../src/schemas/Function.ts"
import { FunctionName } from "../../src/schemas/Ids.ts"
import { WorkPath } from "../../src/schemas/Program.ts"

export const say = Function.make({
  name: FunctionName.make("say"),
  description: "says a word",
  args: Schema.Struct({ word: Schema.String, artefacts: Schema.optionalKey(Schema.Array(WorkPath)) }),
  program: ({ artefacts = [], word }, limits) =>
    Effect.succeed({
      files: [],
      phases: [{ name: "run", argv: ["echo", word], env: {}, stdin: new Uint8Array(), limits: limits.run }],
      artefacts
    })
})
