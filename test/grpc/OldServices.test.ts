import { assert, describe, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import { exitCode, limitsOf } from "../../src/schemas/dialects/JobWorker.ts"
import { errorText, functionOf, ofFloat, statusNumber } from "../../src/schemas/dialects/Workernator.ts"
import { Outcome } from "../../src/schemas/Outcome.ts"
import * as JobApiMemory from "../api/JobApiMemory.ts"
import { pythonRun, withDoor } from "./Door.ts"

const codeOf = (answer: unknown) => (answer as readonly [string, string])[0]

describe("what old clients call, from Python", () => {
  it.live(
    "answers workernator's and teleport-jobworker's clients in their own words",
    () =>
      withDoor(({ port }) =>
        Effect.gen(function*() {
          const told = yield* pythonRun<Record<"rfd" | "pb" | "jobworker", Record<string, unknown>>>(
            "old_services.py",
            port
          )
          const { jobworker, pb, rfd } = told
          assert.deepStrictEqual(rfd["tail"], ["[JOB] Starting job 'Fibonacci'", "[RESULT] 1", "[JOB] Complete"])
          assert.isTrue(rfd["times"])
          assert.deepStrictEqual(rfd["status"], [3, 1, 3, 0, true])
          assert.isTrue(rfd["again"])
          assert.strictEqual(rfd["noop"], 0)
          assert.strictEqual(rfd["expression"], Math.fround(0.1))
          for (const name of ["mismatch", "no arguments", "type 9"]) {
            assert.strictEqual(codeOf(rfd[name]), "INVALID_ARGUMENT", name)
          }

          assert.strictEqual(pb["output"], "hello you\n")
          assert.deepStrictEqual(pb["pieces"], [1024, 1024, 1024, 1024, 904])
          assert.isTrue(pb["exact"])
          // Its clients had no way to see why a job failed.
          assert.strictEqual(pb["stderr"], "why\n")
          assert.strictEqual(pb["empty"], 0)
          assert.deepStrictEqual(pb["job"], ["sleep", [], 1, true])
          assert.deepStrictEqual(pb["failed"], [2, "exit status 3", "exit", ["3"]])
          assert.deepStrictEqual(pb["stopped"], [4, ""])
          assert.strictEqual(pb["again"], 4)
          assert.deepStrictEqual(pb["no program"], ["INVALID_ARGUMENT", "there is no program nope. Check its name."])
          assert.strictEqual(codeOf(pb["no command"]), "INVALID_ARGUMENT")
          assert.deepStrictEqual(pb["gap"], ["DATA_LOSS", "1000 bytes of the output were not kept"])

          assert.match(String(jobworker["id"]), /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
          assert.deepStrictEqual(jobworker["lines"], ["line 0", "line 1", "line 2", "line 3", "line 4"])
          assert.deepStrictEqual(jobworker["now"], jobworker["lines"])
          assert.deepStrictEqual(jobworker["long"], [255, true])
          assert.deepStrictEqual(jobworker["gap"], ["before", "[JOB] 1000 bytes of output were not kept", "after"])
          assert.deepStrictEqual(jobworker["running"], [true, 0, 0])
          assert.deepStrictEqual(jobworker["nothing yet"], [])
          assert.deepStrictEqual(jobworker["status"], [[false, -1], [false, 0], [false, 7]])
          for (const name of ["megabytes", "negative", "weight"]) {
            assert.strictEqual(codeOf(jobworker[name]), "INVALID_ARGUMENT", name)
          }
          for (const answer of [rfd["foreign"], rfd["unknown"], pb["foreign"], jobworker["foreign"]]) {
            assert.strictEqual(codeOf(answer), "NOT_FOUND")
          }

          const { started } = yield* JobApiMemory.Memory
          const requests = (yield* started).map(({ request }) => request)
          const variables = requests.find((request) => request.function === "eval")?.args
          assert.deepStrictEqual(variables, { expression: "2x", args: { x: 0.1 } })
          assert.deepStrictEqual(requests.find(({ id }) => id === jobworker["id"])?.limits, {
            cpuWeight: 50,
            ioWeight: 50,
            memoryBytes: 104_857_600
          })
        })
      ),
    60_000
  )
})

describe("the words of old clients", () => {
  it("tells a job that somebody stopped from one that died", () => {
    const ended = (outcome: Outcome) => statusNumber({ state: "ended", outcome })
    assert.strictEqual(statusNumber({ state: "queued" }), 0)
    assert.strictEqual(statusNumber({ state: "running" }), 1)
    assert.strictEqual(ended(Outcome.cases.Exited.make({ phase: "run", code: 0 })), 3)
    assert.strictEqual(ended(Outcome.cases.Exited.make({ phase: "run", code: 1 })), 2)
    assert.strictEqual(ended(Outcome.cases.Stopped.make({ reason: "" })), 4)
    assert.strictEqual(ended(Outcome.cases.Signalled.make({ phase: "run", signal: 11 })), 2)
    assert.strictEqual(errorText(Outcome.cases.Signalled.make({ phase: "run", signal: 11 })), "was killed by SIGSEGV")
    assert.strictEqual(
      exitCode({ state: "ended", outcome: Outcome.cases.Signalled.make({ phase: "run", signal: 9 }) }),
      -1
    )
  })

  it("takes a float for what its sender wrote", () => {
    for (const value of [0.1, 1e-7, 2.5e-3, 16_777_216, -2.5, 0, 1.234567e30]) {
      assert.strictEqual(ofFloat(Math.fround(value)), value)
    }
    // Every float has a shortest text of nine digits at most.
    assert.strictEqual(Math.fround(ofFloat(Math.fround(1 / 3))), Math.fround(1 / 3))
  })

  it("refuses options nobody can mean, and drops none", () => {
    const limits = (memLimit: string) => limitsOf({ cpuWeight: 0, ioWeight: 0, memLimit })
    assert.deepStrictEqual(limitsOf(undefined), Result.succeed({}))
    assert.deepStrictEqual(limits(""), Result.succeed({}))
    assert.deepStrictEqual(limits("1G"), Result.succeed({ memoryBytes: 1_073_741_824 }))
    assert.deepStrictEqual(limits("4096"), Result.succeed({ memoryBytes: 4096 }))
    for (const text of ["0", "-1", "1.5M", "100MB", "1m", "99999999999999999G", " 1", "M"]) {
      assert.isTrue(Result.isFailure(limits(text)), text)
    }
  })

  it("starts nothing for a type that was not set", () => {
    assert.deepStrictEqual(functionOf(0, { case: undefined }), Result.succeed({ function: "noop", args: {} }))
    assert.isTrue(Result.isFailure(functionOf(0, { case: "fib", value: { number: 3n } })))
    assert.deepStrictEqual(
      functionOf(3, { case: "wait", value: { urlToPost: "http://x/", waitSeconds: 2 } }),
      Result.succeed({ function: "wait", args: { url: "http://x/", seconds: 2 } })
    )
  })
})
