import { assert, describe, it } from "@effect/vitest"
import { join } from "node:path"
import { run } from "../support/Run.ts"
import { projectRoot, Tree } from "../support/Tree.ts"

const forbidden = join(projectRoot, "scripts", "forbidden.mjs")

// In pieces, because this file is checked too.
const cases: ReadonlyArray<readonly [name: string, file: string, text: string]> = [
  ["the npm registry", ".npmrc", ["registry=https://registry", "npmjs", "org/"].join(".")],
  ["a package page", "README.md", ["see https://www", "npmjs", "com/package/effect"].join(".")],
  ["a Debian mirror", "infra/Dockerfile", ["RUN echo http://deb", "debian", "org"].join(".")],
  ["a path of one machine", "src/a.ts", `const root = "${["", "work", "main"].join("/")}"`],
  ["a folder beside the project", "test/a.ts", `import "${["..", "..", "shared"].join("/")}/x.ts"`],
  ["an address in the lock", "package-lock.json", `{ "resolved": "https://example.invalid/x.tgz" }`]
]

describe("forbidden words", () => {
  for (const [name, file, text] of cases) {
    it(`catches ${name}`, async () => {
      using tree = Tree.of({ [file]: `first\n${text}\n` })
      const { code, stderr } = await run("node", [forbidden, tree.path])
      assert.strictEqual(code, 1)
      assert.include(stderr, `${file}:2`)
    })
  }

  it("reads what git would take in, and nothing that is generated or binary", async () => {
    const word = `{ "resolved": "x" }\n`
    using tree = Tree.of({
      ".gitignore": "kept/\n",
      "kept/package-lock.json": word,
      "binary/package-lock.json": `\0${word}`,
      "new/package-lock.json": word
    })
    await run("git", ["init", "-q", tree.path])
    const { code, stderr } = await run("node", [forbidden, tree.path])
    assert.strictEqual(code, 1)
    assert.match(stderr, /^new\/package-lock\.json:1 .*\n$/)
  })

  it("passes on the project", async () => {
    const { code, stderr } = await run("node", [forbidden])
    assert.deepStrictEqual({ code, stderr }, { code: 0, stderr: "" })
  })
})
