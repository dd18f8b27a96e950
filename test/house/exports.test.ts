import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { parseAst } from "rolldown/parseAst"
import { projectRoot } from "../support/Tree.ts"

interface Declared {
  readonly name: string
  readonly start: number
}

/** What a file declares and exports. */
const declarations = (text: string): ReadonlyArray<Declared> =>
  parseAst(text, { lang: "ts" }).body.flatMap((node) => {
    if (node.type !== "ExportNamedDeclaration" || node.declaration === null) return []
    const { declaration, start } = node
    if (declaration.type === "VariableDeclaration") {
      return declaration.declarations.flatMap(({ id }) => id.type === "Identifier" ? [{ name: id.name, start }] : [])
    }
    return "id" in declaration && declaration.id?.type === "Identifier" ? [{ name: declaration.id.name, start }] : []
  })

const isDocumented = (text: string, start: number) => /\/\*\*(?:(?!\*\/)[^])*\*\/\n$/.test(text.slice(0, start))

/** Names that a file exports without a word about them. A schema speaks for the type of the same name. */
const undocumented = (file: string, names?: ReadonlyArray<string>): ReadonlyArray<string> => {
  const text = readFileSync(file, "utf8")
  const declared = declarations(text)
  const spoken = new Set(declared.filter(({ start }) => isDocumented(text, start)).map(({ name }) => name))
  const wanted = names ?? declared.map(({ name }) => name)
  return wanted.filter((name) => !spoken.has(name)).map((name) => `${file.slice(projectRoot.length + 1)}: ${name}`)
}

/** What a program can import from an entry, and says nothing about itself. */
const silent = (entry: string): ReadonlyArray<string> => {
  const file = join(projectRoot, "src", entry)
  return parseAst(readFileSync(file, "utf8"), { lang: "ts" }).body.flatMap((node) => {
    if (node.type === "ExportAllDeclaration") {
      const target = join(dirname(file), node.source.value)
      const speaks = readFileSync(target, "utf8").startsWith("/**")
      return [...(speaks ? [] : [`${target}: what it is`]), ...undocumented(target)]
    }
    if (node.type !== "ExportNamedDeclaration" || node.source === null) return [`${entry}: an export of its own`]
    const names = node.specifiers.flatMap(({ local }) => local.type === "Identifier" ? [local.name] : [])
    return undocumented(join(dirname(file), node.source.value), names)
  })
}

describe("what a program can import", () => {
  for (const entry of ["index.ts", "testing.ts", "conformance.ts", "client.ts"]) {
    it(`says of each name in ${entry} what it is`, () => {
      assert.deepStrictEqual(silent(entry), [])
    })
  }
})
