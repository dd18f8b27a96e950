import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { builtIns } from "../../src/functions/BuiltIn.ts"
import { fib } from "../../src/functions/Fib.ts"
import { Functions, layer } from "../../src/layers/functions/Functions.ts"
import { limits } from "./Programs.ts"

interface Property {
  readonly title?: string
  readonly description?: string
  readonly type?: string
  readonly properties?: Readonly<Record<string, Property>>
  readonly allOf?: ReadonlyArray<Property>
}

/** What a schema says by itself, and what it says in addition. */
const flat = ({ allOf = [], ...own }: Property): Property => Object.assign({}, own, ...allOf) as Property

describe("the built-in functions", () => {
  it.effect("are seven, each of a name of its own", () =>
    Effect.gen(function*() {
      const { definitions } = yield* Functions
      assert.deepStrictEqual(definitions.map(({ name }) => String(name)), [
        "code",
        "command",
        "container",
        "noop",
        "fib",
        "eval",
        "wait"
      ])
    }).pipe(Effect.provide(layer(builtIns))))

  for (const { args, description, name, positional, title } of builtIns) {
    it(`${name}: every argument has a title and a description in its JSON Schema`, () => {
      const schema = flat(Schema.toJsonSchemaDocument(args).schema as Property)
      const properties = Object.entries(schema.properties ?? {})
      const silent = properties.filter(([, property]) => {
        const { description, title } = flat(property)
        return title === undefined || description === undefined
      })
      assert.deepStrictEqual(silent.map(([field]) => field), [])
      assert.strictEqual(schema.type, "object")
      for (const field of Object.keys(positional)) assert.include(properties.map(([key]) => key), field)
      assert.isTrue(description.endsWith("."))
      assert.notStrictEqual(title, "")
    })
  }

  it.effect("those with a handler become one call in a function host, with their arguments as JSON", () =>
    Effect.gen(function*() {
      const program = yield* fib.program({ number: 3 }, limits)
      assert.deepStrictEqual(program.call, { function: fib.name, args: { number: 3 } })
      assert.strictEqual(program.phases.length, 1)
    }))
})
