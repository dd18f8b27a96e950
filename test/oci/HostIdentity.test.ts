import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { mkdtempSync, renameSync, rmSync, statSync, symlinkSync, utimesSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { hostIdentity, identityOf } from "../../src/layers/sandbox/HostIdentity.ts"

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "stoker-identity-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

describe("the host's identity", () => {
  it.effect("is the same while nothing changes, and asked quickly enough for every job", () =>
    Effect.gen(function*() {
      const first = yield* hostIdentity
      assert.match(first, /^host:[0-9a-f]{64}$/)
      const began = performance.now()
      for (let i = 0; i < 100; i++) assert.strictEqual(yield* hostIdentity, first)
      assert.isBelow((performance.now() - began) / 100, 20)
    }))

  it.effect("is another one once a compiler is replaced, also by one of the same size and time", () =>
    Effect.gen(function*() {
      const path = yield* folder
      const [tool, fresh, link] = [join(path, "cc"), join(path, "cc-13"), join(path, "link")]
      writeFileSync(tool, "one")
      symlinkSync("cc", link)
      const seen = [identityOf([tool, link])]
      assert.strictEqual(identityOf([tool, link]), seen[0])
      writeFileSync(fresh, "two")
      utimesSync(fresh, statSync(tool).atime, statSync(tool).mtime)
      renameSync(fresh, tool)
      seen.push(identityOf([tool, link]))
      writeFileSync(fresh, "three")
      rmSync(link)
      symlinkSync("cc-13", link)
      seen.push(identityOf([tool, link]))
      rmSync(link)
      seen.push(identityOf([tool, link]))
      assert.strictEqual(new Set(seen).size, 4)
    }).pipe(Effect.scoped))
})
