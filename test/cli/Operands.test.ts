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
  it("of jobs start are the function's words; which server is meant is taken out of them", () => {
    assert.deepStrictEqual(
      splitOperands(["jobs", "--context", "a", "start", "fib", "--server=x", "-1", "--ca", "c", "--", "--key", "k"]),
      {
        args: ["jobs", "--context", "a", "--server=x", "--ca", "c", "start"],
        operands: ["fib", "-1", "--", "--key", "k"]
      }
    )
    assert.deepStrictEqual(splitOperands(["jobs", "start"]), { args: ["jobs", "start"], operands: [] })
    assert.deepStrictEqual(splitOperands(["jobs", "status", "start"]), {
      args: ["jobs", "status", "start"],
      operands: []
    })
    assert.deepStrictEqual(splitOperands(["jobs", "complete", "--", "start", "--server", "x"]), {
      args: ["jobs", "complete"],
      operands: ["start", "--server", "x"]
    })
  })
})
