/** Modules of functions: what a worker makes of good ones, and how it refuses the others before it starts. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Result, Schema } from "effect"
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { code } from "../../src/functions/Code.ts"
import * as FunctionFiles from "../../src/layers/functions/FunctionFiles.ts"
import { Functions } from "../../src/layers/functions/Functions.ts"
import { make } from "../../src/schemas/Function.ts"

const place = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "stoker-functions-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

const defining = (name: string) =>
  `import { Effect, Schema } from "effect"
import { Function } from "stoker"
export const ${name} = Function.make({ name: "${name}", description: "does.", args: Schema.Struct({ n: Schema.Int }),
  handler: ({ n }) => Effect.succeed(n) })
`

const load = (state: string, files: ReadonlyArray<string>, taken: ReadonlyArray<string> = ["code"]) =>
  FunctionFiles.load({ files, stateDirectory: state, taken: new Set(taken) })

const write = (directory: string, name: string, text: string) => {
  const file = join(directory, name)
  writeFileSync(file, text)
  return file
}

describe("a module of functions", () => {
  it.live(
    "is bundled with what it imports, kept by its content, and checks arguments here",
    () =>
      Effect.scoped(Effect.gen(function*() {
        const state = yield* place
        const source = yield* place
        mkdirSync(join(source, "node_modules/tiny"), { recursive: true })
        write(join(source, "node_modules/tiny"), "package.json", "{\"name\":\"tiny\",\"main\":\"index.js\"}")
        write(join(source, "node_modules/tiny"), "index.js", "exports.twice = (n) => 2 * n")
        write(source, "helper.ts", "export const most: number = 7")
        const file = write(
          source,
          "own.ts",
          `import { Effect, Schema } from "effect"
import { Function, Program } from "stoker"
import { twice } from "tiny"
import { most } from "./helper.ts"
export const helper = () => most
const args = Schema.Struct({ n: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: most })) })
const one = Function.make({ name: "one", description: "doubles.", args, handler: ({ n }) => Effect.succeed(twice(n)) })
const two = Function.make({ name: "two", description: "runs.", args,
  program: (_, { run }) => Effect.succeed(Program.ofRun({ argv: ["true"], limits: run })) })
export { one as another }
export default [one, two]
`
        )
        const { definitions, host } = yield* load(state, [file])
        assert.deepStrictEqual(definitions.map(({ name }) => `${name}`).toSorted(), ["one", "two"])
        assert.isTrue(host.names.has("one"))
        assert.isFalse(host.names.has("two"))
        const one = definitions.find(({ name }) => name === "one")
        assert.isDefined(one)
        const wrong = yield* Effect.result(one?.check({ n: 8 }) ?? Effect.void)
        assert.isTrue(Result.isFailure(wrong) && /between 1 and 7/.test(wrong.failure.reason), JSON.stringify(wrong))
        const right = yield* Effect.result(one?.check({ n: 7 }) ?? Effect.void)
        assert.isTrue(Result.isSuccess(right))
        const first = readdirSync(join(state, "functions"))
        // Made once: the same content has the same name.
        assert.strictEqual((yield* load(state, [file])).host.directory, host.directory)
        assert.deepStrictEqual(readdirSync(join(state, "functions")), first)
        assert.deepStrictEqual(readdirSync(host.directory).toSorted(), ["functions.cache", "functions.cjs", "host.cjs"])
      })),
    60_000
  )

  it.live("of ours alone are tried once, and no more at later starts", () =>
    Effect.scoped(Effect.gen(function*() {
      const state = yield* place
      const { host } = yield* load(state, [])
      // Whoever tried it again would fail.
      write(host.directory, "host.cjs", "process.exit(9)")
      assert.strictEqual((yield* load(state, [])).host.directory, host.directory)
    })), 60_000)

  const refusals: ReadonlyArray<readonly [what: string, text: string, reason: RegExp]> = [
    ["throws", "throw new TypeError(\"not today\")", /TypeError: not today/],
    ["ends the process", "process.exit(0)", /ends the process/],
    ["ends the process with a code", "process.exit(3)", /code 3/],
    ["exports nothing", "export const helper = 1", /exports no function/],
    ["does not parse", "export const x = (", /cannot be bundled/],
    ["imports what is not there", "import x from \"not-there\"\nexport const y = x", /not-there/],
    ["has the name of a built-in function", defining("code"), /code has the name of a built-in function/],
    [
      "has one name twice",
      `${
        defining("once")
      }\nexport const twice = Function.make({ name: "once", description: "d.", args: Schema.Struct({}),
        handler: () => Effect.void })`,
      /once has the name of another/
    ],
    ["has a name that is none", defining("x").replace("name: \"x\"", "name: \"No Name\""), /cannot be loaded/]
  ]
  for (const [what, text, reason] of refusals) {
    it.live(`that ${what} is refused with a reason and a remedy`, () =>
      Effect.scoped(Effect.gen(function*() {
        const state = yield* place
        const file = write(yield* place, "own.ts", text)
        const result = yield* Effect.result(load(state, [file]))
        assert.isTrue(Result.isFailure(result))
        if (Result.isSuccess(result)) return
        assert.strictEqual(result.failure._tag, "FunctionsRefused")
        assert.strictEqual(result.failure.file, file)
        assert.match(result.failure.reason, reason)
        assert.isNotEmpty(result.failure.remedy)
        const kept = yield* Effect.sync(() => readdirSync(state).flatMap((name) => readdirSync(join(state, name))))
        assert.deepStrictEqual(kept, [])
      })), 60_000)
  }

  it.live("that never ends is given up after 10 s", () =>
    Effect.scoped(Effect.gen(function*() {
      const file = write(yield* place, "own.ts", "for (;;);")
      const result = yield* Effect.result(load(yield* place, [file]))
      assert.isTrue(Result.isFailure(result) && /after 10 s/.test(result.failure.reason))
    })), 60_000)

  it.live("that is not there is refused", () =>
    Effect.gen(function*() {
      const result = yield* Effect.result(load("/nowhere", ["/nowhere/own.ts"]))
      assert.isTrue(Result.isFailure(result) && /no such file/.test(result.failure.reason))
    }))

  it.live("two files may not define the same function", () =>
    Effect.scoped(Effect.gen(function*() {
      const source = yield* place
      const files = [write(source, "a.ts", defining("same")), write(source, "b.ts", defining("same"))]
      const result = yield* Effect.result(load(yield* place, files))
      assert.isTrue(Result.isFailure(result) && result.failure.file === files[1])
    })), 60_000)
})

it.live(
  "a handler given as a value, whose file nobody knows, stops the worker at its start",
  () =>
    Effect.scoped(Effect.gen(function*() {
      const state = yield* place
      const orphan = make({ name: "orphan", description: "d.", args: Schema.Struct({}), handler: () => Effect.void })
      const layer = FunctionFiles.layer({ definitions: [code, orphan], files: [], stateDirectory: state })
      const result = yield* Effect.result(Effect.provide(Effect.asVoid(Functions), layer))
      assert.isTrue(Result.isFailure(result) && result.failure._tag === "FunctionsRefused")
    })),
  60_000
)
