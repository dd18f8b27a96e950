/** Calls of functions with handlers as a function host makes them: arguments from JSON, lines and result as told. */
import { Effect, Schema } from "effect"
import type { Definition, Handler } from "../../src/schemas/Function.ts"

export interface Called {
  readonly said: ReadonlyArray<string>
  readonly result: unknown
}

/** Checks and decodes the arguments, then runs the handler. Fails as one of the two does. */
export const call = Effect.fnUntraced(function*(definition: Definition, args: unknown) {
  yield* definition.check(args)
  const said: Array<string> = []
  const handler = definition.handler as Handler<unknown> | undefined
  if (handler === undefined) return yield* Effect.die(new Error(`${definition.name} has no handler`))
  const decoded = yield* Schema.decodeUnknownEffect(definition.args as Schema.Codec<unknown>)(args)
  const result = yield* handler(decoded, {
    id: "1",
    owner: "local",
    attempt: 1,
    say: (line) => Effect.sync(() => void said.push(line))
  })
  const called: Called = { said, result }
  return called
})

/** The refusal's whole text. Dies if the arguments were accepted. */
export const refused = (definition: Definition, args: unknown) =>
  definition.check(args).pipe(Effect.flip, Effect.orDie, Effect.map((error) => error.message))

/** The failure's whole text. Dies if it had none. */
export const failure = (definition: Definition, args: unknown) =>
  call(definition, args).pipe(
    Effect.flip,
    Effect.orDie,
    Effect.map((error) => (error instanceof Error ? error.message : String(error)))
  )
