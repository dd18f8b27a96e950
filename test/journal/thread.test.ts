import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { join } from "node:path"

/** What a source file loads, by way of others too; types load nothing. */
const loaded = (file: string, known = new Set<string>()): ReadonlySet<string> => {
  for (const [, specifier = ""] of readFileSync(file, "utf8").matchAll(/^import (?!type )[^]*?from "([^"]+)"$/gm)) {
    const target = specifier.startsWith(".") ? join(file, "..", specifier) : specifier
    if (known.has(target)) continue
    known.add(target)
    if (specifier.startsWith(".")) loaded(target, known)
  }
  return known
}

describe("the journal's thread", () => {
  it("loads nothing of Effect: its start and its memory count", () => {
    const all = [...loaded(join(import.meta.dirname, "../../src/layers/journal/sqliteWorker.ts"))]
    assert.isAbove(all.length, 5)
    assert.deepStrictEqual(all.filter((name) => !name.startsWith("/") && !name.startsWith("node:")), [])
  })
})
