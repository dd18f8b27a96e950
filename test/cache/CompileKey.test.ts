import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { compileKey, type CompilePlace } from "../../src/layers/cache/CompileKey.ts"
import { IntakeName, Owner } from "../../src/schemas/Ids.ts"
import { standardDefaults } from "../../src/schemas/Limits.ts"
import { type Phase, type Program, WorkPath } from "../../src/schemas/Program.ts"

const place: CompilePlace = {
  intake: IntakeName.make("embedded"),
  owner: Owner.make("ada"),
  driver: "oci",
  runtime: "crun",
  root: "debian 12"
}
const phase: Phase = {
  name: "compile",
  argv: ["gcc", "-o", "program", "main.c"],
  env: { PATH: "/usr/bin", LANG: "C" },
  stdin: new Uint8Array(),
  limits: standardDefaults
}
const file = (path: string, content: string, executable = false): Program["files"][number] => ({
  path: WorkPath.make(path),
  content: new TextEncoder().encode(content),
  executable
})
const program: Pick<Program, "files" | "products"> = {
  files: [file("main.c", "int main(){}"), file("a.h", "x")],
  products: [WorkPath.make("program")]
}

describe("the key of a compile", () => {
  it.effect("is the same for the same, whatever its limits and the order of its variables", () =>
    Effect.gen(function*() {
      const key = yield* compileKey(place, phase, program)
      assert.match(key, /^[0-9a-f]{64}$/)
      const limits = { ...standardDefaults, memoryBytes: standardDefaults.memoryBytes * 2, wallMs: 1 }
      const env = { LANG: "C", PATH: "/usr/bin" }
      assert.strictEqual(yield* compileKey({ ...place }, { ...phase, limits, env }, { ...program }), key)
    }))

  it.effect("is another one for everything that could change the product, or whose it is", () =>
    Effect.gen(function*() {
      const others: ReadonlyArray<readonly [CompilePlace, Phase, typeof program]> = [
        [place, phase, program],
        [{ ...place, intake: IntakeName.make("codebench") }, phase, program],
        [{ ...place, owner: Owner.make("bob") }, phase, program],
        [{ ...place, driver: "mine" }, phase, program],
        [{ ...place, runtime: "runsc" }, phase, program],
        [{ ...place, root: "debian 13" }, phase, program],
        [place, { ...phase, argv: ["gcc", "-o", "program", "main.c", "-g"] }, program],
        [place, { ...phase, argv: ["gcc", "-o", "program main.c"] }, program],
        [place, { ...phase, env: { PATH: "/usr/bin" } }, program],
        [place, { ...phase, env: { PATH: "/usr/bin", LANG: "D" } }, program],
        [place, { ...phase, stdin: new Uint8Array([1]) }, program],
        [place, phase, { ...program, products: [WorkPath.make("program"), WorkPath.make("go.mod")] }],
        [place, phase, { ...program, files: [file("main.c", "int main(){ }"), file("a.h", "x")] }],
        [place, phase, { ...program, files: [file("main.c", "int main(){}"), file("b.h", "x")] }],
        [place, phase, { ...program, files: [file("main.c", "int main(){}"), file("a.h", "x", true)] }],
        [place, phase, { ...program, files: [file("main.c", "int main(){}")] }],
        [place, phase, { ...program, files: [file("main.c", "int main(){}a.h")] }]
      ]
      const keys = yield* Effect.forEach(others, ([where, what, of]) => compileKey(where, what, of))
      assert.strictEqual(new Set(keys).size, others.length)
    }))

  it.effect("of large files lets others act in between", () =>
    Effect.gen(function*() {
      const large = { ...program, files: [file("data", "x".repeat(3 * 1024 * 1024 + 1))] }
      assert.strictEqual(yield* compileKey(place, phase, large), yield* compileKey(place, phase, large))
      let isOthersTurn = false
      setImmediate(() => isOthersTurn = true)
      yield* compileKey(place, phase, large)
      assert.isTrue(isOthersTurn)
    }))
})
