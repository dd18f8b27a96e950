import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { run } from "../support/Run.ts"
import { Tree } from "../support/Tree.ts"

const config = `import { defineConfig } from "vitest/config"
import { SummaryReporter } from "./test/support/SummaryReporter.ts"
export default defineConfig({ test: { include: ["*.test.ts"], reporters: [new SummaryReporter("summary")] } })
`

const summary = async (files: Readonly<Record<string, string>>) => {
  using tree = Tree.of({ ...files, "vitest.config.ts": config, "package.json": `{ "type": "module" }` })
    .copy("test/support/SummaryReporter.ts").linkPackages()
  const { code, stdout } = await run("vitest", ["run"], { cwd: tree.path })
  return { code, stdout, line: readFileSync(join(tree.path, "summary"), "utf8") }
}

const head = `import { beforeAll, describe, expect, it } from "vitest"\n`

describe("the summary line", () => {
  it("counts every test once", async () => {
    const { code, line } = await summary({
      "a.test.ts":
        `${head}it("a", () => {})\nit("b", () => {})\nit("c", () => expect(1).toBe(2))\nit.skip("d", () => {})\n`
    })
    assert.deepStrictEqual({ code, line }, { code: 1, line: "2 passed, 1 failed, 1 skipped\n" })
  })

  it("names no skipped tests when there are none", async () => {
    const { code, line } = await summary({ "a.test.ts": `${head}it("a", () => {})\n` })
    assert.deepStrictEqual({ code, line }, { code: 0, line: "1 passed, 0 failed\n" })
  })

  it("names what passed at its second try only, and counts it as passed", async () => {
    const { code, line, stdout } = await summary({
      "a.test.ts": `${head}let tries = 0\ndescribe("x", () => {
  it("a", { retry: 1 }, () => expect(++tries).toBe(2))
  it("b", { retry: 1 }, () => {})
  it("c", { retry: 1 }, () => expect(1).toBe(2))
})\n`
    })
    assert.deepStrictEqual({ code, line }, { code: 1, line: "2 passed, 1 failed\n" })
    assert.deepStrictEqual(stdout.split("\n").filter((text) => text.includes("second try")), [
      "passed at its second try only: a.test.ts > x > a"
    ])
  })

  it("counts files that do not load, broken hooks and stray errors as failed", async () => {
    const { code, line } = await summary({
      "load.test.ts": `${head}throw new Error("does not load")\n`,
      "hook.test.ts":
        `${head}describe("x", () => { beforeAll(() => { throw new Error("hook") })\nit("a", () => {}) })\n`,
      "stray.test.ts": `${head}it("a", () => { void Promise.reject(new Error("stray")) })\n`
    })
    assert.strictEqual(code, 1)
    assert.match(line, /^1 passed, 3 failed/)
  })
})
