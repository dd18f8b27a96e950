import { assert, describe, it } from "@effect/vitest"
import { join } from "node:path"
import { run } from "../support/Run.ts"
import { projectRoot, Tree } from "../support/Tree.ts"

const lint = async (files: Readonly<Record<string, string>>) => {
  using tree = Tree.of(files).copy(".oxlintrc.json")
  return await run("oxlint", ["--deny-warnings", "--format", "unix"], { cwd: tree.path })
}

/** The rule, where it holds, and a line that breaks it. */
const caught: ReadonlyArray<readonly [rule: string, file: string, text: string]> = [
  ["no-explicit-any", "src/a.ts", "export const a = (x: any) => x"],
  ["no-explicit-any", "test/a.ts", "export const a = [] as Array<any>"],
  ["no-non-null-assertion", "src/a.ts", "export const a = (x?: string) => x!.length"],
  ["no-default-export", "src/a.ts", "export default 1"],
  ["no-console", "src/a.ts", `console.log("x")`],
  ["no-restricted-properties", "src/a.ts", "export const a = () => Date.now()"],
  ["no-restricted-properties", "src/a.ts", "export const a = () => Math.random()"],
  ["no-barrel-file", "src/layers/index.ts", `export * from "./a.ts"`],
  ["consistent-type-imports", "src/a.ts", `import { A } from "./b.ts"\nexport const a = (x: A) => x`],
  ["no-unused-vars", "src/a.ts", "const unused = 1"],
  ["eqeqeq", "src/a.ts", "export const a = (x: number) => x == 1"],
  ["no-focused-tests", "test/a.test.ts", `import { it } from "@effect/vitest"\nit.only("x", () => undefined)`],
  ["no-disabled-tests", "test/a.test.ts", `import { it } from "@effect/vitest"\nit.skip("x", () => undefined)`]
]

const compile = async (text: string) => {
  using tree = Tree.of({ "src/a.ts": text }).copy("tsconfig.json").linkPackages()
  return await run(join(projectRoot, "node_modules/@effect/tsgo-linux-x64/lib/tsc"), ["--noEmit"], { cwd: tree.path })
}

describe("oxlint", () => {
  for (const [rule, file, text] of caught) {
    it(`catches by ${rule} in ${file}: ${text.split("\n").at(-1)}`, async () => {
      const { code, stdout } = await lint({ [file]: `${text}\n` })
      assert.strictEqual(code, 1)
      assert.include(stdout, `(${rule})`)
    })
  }

  it("lets pass what Effect code is made of, and console and default exports outside src", async () => {
    const { code, stdout } = await lint({
      "src/a.ts": `import { Effect, Schema } from "effect"
export const Id = Schema.String
export type Id = typeof Id.Type
export const _make = Effect.gen(function*() {
  return 1
})
export const each = async (ids: ReadonlyArray<Id>, f: (id: Id) => Promise<void>) => {
  for (const id of ids) await f(id)
}
`,
      "src/index.ts": `export { Id } from "./a.ts"\n`,
      "bench/run.ts": `console.log(Date.now())\n`,
      "some.config.ts": `export default {}\n`
    })
    assert.deepStrictEqual({ code, stdout: stdout.trim() }, { code: 0, stdout: "" })
  })
})

describe("types", () => {
  it("catches an Effect that is made and forgotten", async () => {
    const { code, stdout } = await compile(`import { Effect } from "effect"
export const a = Effect.gen(function*() {
  Effect.log("forgotten")
  yield* Effect.void
})
`)
    assert.notStrictEqual(code, 0)
    assert.match(stdout, /floatingEffect|Effect must be yielded/i)
  })

  it("fails on a warning of Effect's diagnostics too", async () => {
    const { code, stdout } = await compile(`import { Effect, Layer } from "effect"
export const a = Effect.void.pipe(Effect.provide(Layer.empty), Effect.provide(Layer.empty))
`)
    assert.match(stdout, /warning/i)
    assert.notStrictEqual(code, 0)
  })

  it("catches an index that may be missing and an enum", async () => {
    const { stdout } = await compile(
      "export const a = (x: ReadonlyArray<string>): string => x[0]\nexport enum B { C }\n"
    )
    assert.include(stdout, "TS2322")
    assert.include(stdout, "TS1294")
  })
})

describe("dprint", () => {
  const check = async (text: string) => {
    using tree = Tree.of({ "src/a.ts": text }).copy("dprint.json").linkPackages()
    return await run("dprint", ["check"], { cwd: tree.path })
  }
  it("catches semicolons, single quotes and trailing commas", async () => {
    for (const text of ["export const a = 1;\n", "export const a = 'x'\n", "export const a = [\n  1,\n  2,\n]\n"]) {
      assert.strictEqual((await check(text)).code, 20)
    }
  })
  it("lets pass Effect's own way to write", async () => {
    assert.strictEqual((await check("export const a = function*(x: number) {\n  yield x\n}\n")).code, 0)
  })
})
