import { assert, describe, it } from "@effect/vitest"
import { splitOperands } from "../../src/cli/Operands.ts"

describe("operands", () => {
  it("are what follows the first -- of run and submit", () => {
    assert.deepStrictEqual(splitOperands(["run", "a.c", "--", "x", "--", "--json"]), {
      args: ["run", "a.c"],
      operands: ["x", "--", "--json"]
    })
    assert.deepStrictEqual(splitOperands(["submit", "--"]), { args: ["submit"], operands: [] })
  })
  it("are left to the parser for other commands", () => {
    assert.deepStrictEqual(splitOperands(["status", "--", "-x"]), { args: ["status", "--", "-x"], operands: [] })
    assert.deepStrictEqual(splitOperands([]), { args: [], operands: [] })
  })
})
