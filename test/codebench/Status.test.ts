import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { CodeBenchStatus, encode, ended, outputText, progress } from "../../src/schemas/dialects/CodeBenchStatus.ts"
import { JobId } from "../../src/schemas/Ids.ts"
import { Outcome } from "../../src/schemas/Outcome.ts"
import type { Usage } from "../../src/schemas/Usage.ts"
import { noUsage } from "../../src/schemas/Usage.ts"

const id = JobId.make("666")
const compiled = { phase: "compile", wallMicros: 900_000, memoryPeakBytes: 90_000_000 } as const
const usage: Usage = { phases: [compiled, { phase: "run", wallMicros: 1234, memoryPeakBytes: 2_097_000 }] }
const onlyCompiled: Usage = { phases: [compiled] }
const output = { stdout: "out\n", stderr: "err" }

const { Exited, Lost, OutOfMemory, OutputExceeded, Rejected, SandboxFailed, Signalled, Stopped, TimedOut } =
  Outcome.cases

/** Outcome, usage, and what both forms have between the output and the braces. */
const golden: ReadonlyArray<readonly [string, Outcome, Usage, string, string, string, number, number]> = [
  ["success", Exited.make({ phase: "run", code: 0 }), usage, "done", "Success", "", 1234, 2048],
  ["exit 3", Exited.make({ phase: "run", code: 3 }), usage, "failed", "Failed to run", "exit status 3", 1234, 2048],
  [
    "failed compile",
    Exited.make({ phase: "compile", code: 1 }),
    onlyCompiled,
    "failed",
    "Failed to compile",
    "exit status 1",
    0,
    0
  ],
  [
    "signal 11",
    Signalled.make({ phase: "run", signal: 11 }),
    usage,
    "failed",
    "Failed to run",
    "signal: segmentation fault",
    1234,
    2048
  ],
  [
    "signal 6",
    Signalled.make({ phase: "run", signal: 6 }),
    usage,
    "failed",
    "Failed to run",
    "signal: aborted",
    1234,
    2048
  ],
  [
    "signal 34",
    Signalled.make({ phase: "run", signal: 34 }),
    usage,
    "failed",
    "Failed to run",
    "signal: signal 34",
    1234,
    2048
  ],
  [
    "compiler killed",
    Signalled.make({ phase: "compile", signal: 9 }),
    onlyCompiled,
    "failed",
    "Failed to compile",
    "signal: killed",
    0,
    0
  ],
  [
    "wall time",
    TimedOut.make({ phase: "run", limit: "wall", limitMs: 500 }),
    usage,
    "failed",
    "Failed to run",
    "run exceeded its wall time limit of 500 ms",
    1234,
    2048
  ],
  [
    "compile time",
    TimedOut.make({ phase: "compile", limit: "cpu", limitMs: 500 }),
    onlyCompiled,
    "failed",
    "Failed to compile",
    "compile exceeded its cpu time limit of 500 ms",
    0,
    0
  ],
  [
    "memory",
    OutOfMemory.make({ phase: "run", limitBytes: 64 }),
    usage,
    "failed",
    "Failed to run",
    "run exceeded its memory limit of 64 bytes",
    1234,
    2048
  ],
  [
    "output",
    OutputExceeded.make({ phase: "run", stream: "stdout", limitBytes: 9 }),
    usage,
    "failed",
    "Failed to run",
    "wrote more than 9 bytes to stdout",
    1234,
    2048
  ],
  [
    "stopped",
    Stopped.make({ reason: "by hand" }),
    usage,
    "failed",
    "Failed to run",
    "was stopped: by hand",
    1234,
    2048
  ],
  [
    "rejected",
    Rejected.make({ reason: "too much", remedy: "Ask for less." }),
    noUsage,
    "failed",
    "Failed to run",
    "was rejected: too much. Ask for less.",
    0,
    0
  ],
  [
    "no sandbox",
    SandboxFailed.make({ driver: "oci", reason: "no crun", remedy: "Install it." }),
    noUsage,
    "failed",
    "Failed to run",
    "could not be run by oci: no crun. Install it.",
    0,
    0
  ],
  [
    "lost",
    Lost.make({ attempts: 2 }),
    noUsage,
    "failed",
    "Failed to run",
    "was lost: its worker died in each of 2 attempts",
    0,
    0
  ]
]

describe("CodeBench statuses", () => {
  it("received and running are byte for byte what clients know", () => {
    assert.strictEqual(
      encode("exchange", progress(id, "received")),
      `{"id":"666","status":"received","message":"","error":"","stderr":"","stdout":"","exec_duration":0,"mem_usage":0}`
    )
    assert.strictEqual(
      encode("queue", progress(id, "running")),
      `{"id":"666","status":"running","stderr":"","stdout":"","message":"","error":"","exec_duration":0,"mem_usage":0}`
    )
  })

  for (const [name, outcome, used, status, message, error, duration, memory] of golden) {
    it(`${name}: byte for byte, output and usage kept, in both forms`, () => {
      const told = ended(id, outcome, used, output)
      assert.strictEqual(
        encode("exchange", told),
        `{"id":"666","status":"${status}","message":"${message}","error":"${error}","stderr":"err","stdout":"out\\n"`
          + `,"exec_duration":${duration},"mem_usage":${memory}}`
      )
      assert.strictEqual(
        encode("queue", told),
        `{"id":"666","status":"${status}","stderr":"err","stdout":"out\\n","message":"${message}","error":"${error}"`
          + `,"exec_duration":${duration},"mem_usage":${memory}}`
      )
    })
  }

  it("there is a golden status for every outcome", () =>
    assert.sameMembers([...new Set(golden.map(([, outcome]) => outcome._tag))], Object.keys(Outcome.cases)))

  it("what cannot be measured is 0, for the fields must be there", () => {
    const told = ended(
      id,
      Exited.make({ phase: "run", code: 0 }),
      { phases: [{ phase: "run", wallMicros: 5 }] },
      output
    )
    assert.deepInclude(told, { exec_duration: 5, mem_usage: 0 })
  })

  it("any text comes back as it went in", () => {
    const stdout = "\"\\\u2028\u0000\u001b[1m😀</script>\r\n"
    const decoded = Schema.decodeSync(Schema.fromJsonString(CodeBenchStatus))(
      encode("queue", ended(id, Exited.make({ phase: "run", code: 0 }), noUsage, { stdout, stderr: "" }))
    )
    assert.strictEqual(decoded.stdout, stdout)
  })
})

describe("output as text", () => {
  const utf8 = (text: string) => new TextEncoder().encode(text)

  it("a character cut between two pieces is whole", () => {
    const [head, tail] = [utf8("ä").subarray(0, 1), utf8("ä").subarray(1)]
    assert.strictEqual(outputText([utf8("x"), head, tail]), "xä")
  })

  it("what is not UTF-8 is U+FFFD", () => assert.strictEqual(outputText([new Uint8Array([0x61, 0xff])]), "a\uFFFD"))

  it("a byte order mark is output like any other", () => assert.strictEqual(outputText([utf8("\uFEFFa")]), "\uFEFFa"))

  it("one mark stands for all that is missing in one place", () => {
    assert.strictEqual(
      outputText([utf8("a"), 3, 4, utf8("b"), 5]),
      "a\n[7 bytes left out here]\nb\n[5 bytes left out here]\n"
    )
    assert.strictEqual(outputText([3, utf8(""), 4]), "\n[7 bytes left out here]\n")
    assert.strictEqual(outputText([utf8("ä").subarray(0, 1), 1]), "\uFFFD\n[1 bytes left out here]\n")
  })

  it("nothing is nothing", () => assert.strictEqual(outputText([]), ""))
})
