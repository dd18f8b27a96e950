import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { noop } from "../../src/functions/Noop.ts"
import { call, refused } from "./Calls.ts"

describe("noop", () => {
  it.effect("prints nothing and gives nothing back", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* call(noop, {}), { said: [], result: undefined })
    }))

  for (const args of [{ a: 1 }, 5, "x", [], null, undefined, true]) {
    it.effect(`refuses ${JSON.stringify(args)}`, () =>
      Effect.map(refused(noop, args), (text) => assert.include(text, "noop does nothing")))
  }
})
