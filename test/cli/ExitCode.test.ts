import { assert, describe, it } from "@effect/vitest"
import { exitCodeHelp, exitCodeOf, exitCodes } from "../../src/cli/ExitCode.ts"
import { Outcome } from "../../src/schemas/Outcome.ts"

const { cases } = Outcome

const table: ReadonlyArray<readonly [Outcome, number]> = [
  [cases.Exited.make({ phase: "run", code: 0 }), 0],
  [cases.Exited.make({ phase: "run", code: 3 }), 3],
  [cases.Exited.make({ phase: "compile", code: 1 }), 1],
  [cases.Signalled.make({ phase: "run", signal: 11 }), 139],
  [cases.TimedOut.make({ phase: "run", limit: "wall", limitMs: 10 }), 124],
  [cases.OutOfMemory.make({ phase: "run", limitBytes: 1 }), 137],
  [cases.OutputExceeded.make({ phase: "run", stream: "stdout", limitBytes: 1 }), 122],
  [cases.Stopped.make({ reason: "x" }), 130],
  [cases.Rejected.make({ reason: "x", remedy: "y" }), 126],
  [cases.SandboxFailed.make({ driver: "oci", reason: "x", remedy: "y" }), 125],
  [cases.Lost.make({ attempts: 2 }), 125]
]

describe("exit codes", () => {
  for (const [outcome, code] of table) {
    it(`${outcome._tag} ends with ${code}`, () => assert.strictEqual(exitCodeOf(outcome), code))
  }

  it("are all in the help text", () => {
    for (const [code, meaning] of exitCodes) {
      assert.match(exitCodeHelp, new RegExp(`  ${code.replace("+", "\\+")} +${meaning.slice(0, 8)}`))
    }
    for (const [, code] of table) {
      if (code > 121 && code !== 139) assert.include(exitCodeHelp, `  ${code} `)
    }
  })
})
