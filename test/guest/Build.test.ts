import { assert, describe, it } from "@effect/vitest"
import { existsSync, readdirSync, readFileSync, statSync, utimesSync } from "node:fs"
import { join } from "node:path"
import { programs } from "../../src/layers/host/Native.ts"
import { run } from "../support/Run.ts"
import { Tree } from "../support/Tree.ts"

/** Whether an ELF64 program names a dynamic loader (a program header of type PT_INTERP). */
const hasInterpreter = (elf: Buffer): boolean =>
  Array.from({ length: elf.readUInt16LE(56) }, (_, i) => elf.readUInt32LE(Number(elf.readBigUInt64LE(32)) + 56 * i))
    .includes(3)

describe("native/build", () => {
  it("builds static programs, and again only what is older than its sources", async () => {
    using tree = Tree.of({}).copy("native")
    const build = async () => (await run(join(tree.path, "native/build"), [])).stdout
    assert.strictEqual(await build(), `native/build: built ${programs.join(" ")} into build/native\n`)
    assert.deepStrictEqual(readdirSync(join(tree.path, "build/native")), programs.toSorted())
    for (const name of programs) {
      assert.isFalse(hasInterpreter(readFileSync(join(tree.path, "build/native", name))), `${name} is static`)
    }
    assert.strictEqual(await build(), "native/build: up to date\n")
    const later = statSync(join(tree.path, "build/native/guest")).mtimeMs / 1000 + 2
    utimesSync(join(tree.path, "native/guest/guest.h"), later, later)
    assert.strictEqual(await build(), "native/build: built agent guest into build/native\n", "agent speaks its words")
  })

  it("says what to install when there is no compiler, and leaves nothing half-built", async () => {
    using tree = Tree.of({}).copy("native")
    const { code, stderr } = await run(join(tree.path, "native/build"), [], {
      env: { ...process.env, CC: "no-such-compiler" }
    })
    assert.strictEqual(code, 1)
    assert.match(stderr, /^native\/build: no C compiler `no-such-compiler` to build agent with: install gcc.*\n$/)
    assert.isFalse(existsSync(join(tree.path, "build/native/agent")))
  })
})
