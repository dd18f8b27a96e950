import { assert, describe, it } from "@effect/vitest"
import { nearest } from "../../src/schemas/Nearest.ts"

describe("the name somebody may have meant", () => {
  it("is the one most like it, if one is", () => {
    assert.strictEqual(nearest("fibb", ["fib", "eval"]), "fib")
    assert.strictEqual(nearest("drainMs", ["drain", "slots"]), "drain")
    assert.isUndefined(nearest("everything", ["fib", "eval"]))
  })

  // Comparing takes time by the length of both: megabytes of a caller's would hold up everybody else for seconds.
  it("is not looked for when nobody can have meant to write so much", () => {
    assert.isUndefined(nearest(`fib${"x".repeat(4_000_000)}`, ["fib", "eval"]))
    assert.isUndefined(nearest("x".repeat(4_000_000), ["fib", "eval"]))
  })
})
