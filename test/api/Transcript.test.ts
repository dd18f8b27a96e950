import { assert, describe, it } from "@effect/vitest"
import { LineCutter } from "../../src/schemas/Lines.ts"
import { Outcome } from "../../src/schemas/Outcome.ts"
import { endLines, gapLine, startLine, titleOf } from "../../src/schemas/Transcript.ts"
import { randomOf } from "../support/Random.ts"

describe("the lines that a tail adds", () => {
  it("are those of the RFD's transcript", () => {
    const title = titleOf([{ name: "fib" as never, title: "Fibonacci" }], "fib")
    assert.strictEqual(startLine(title, 1), "[JOB] Starting job 'Fibonacci'")
    assert.deepStrictEqual(endLines(Outcome.cases.Exited.make({ phase: "run", code: 0 })), ["[JOB] Complete"])
  })

  it("say how a job ended that did not succeed, and what is missing", () => {
    assert.strictEqual(titleOf([], "fib"), "fib")
    assert.strictEqual(startLine("fib", 2), "[JOB] Starting job 'fib' again, attempt 2")
    assert.strictEqual(gapLine(7), "[JOB] 7 bytes of output were not kept")
    assert.deepStrictEqual(endLines(Outcome.cases.Stopped.make({ reason: "enough" })), ["[JOB] Stopped: enough"])
    assert.deepStrictEqual(endLines(Outcome.cases.Exited.make({ phase: "run", code: 3 }), false), [
      "[JOB] The end of the output may be missing",
      "[JOB] Failed: exited with status 3"
    ])
    assert.deepStrictEqual(endLines(undefined), [])
  })
})

const cut = (most: number, pieces: ReadonlyArray<Uint8Array>) => {
  const cutter = new LineCutter(most)
  return [...pieces.flatMap((piece) => cutter.push(piece)), ...cutter.end()]
}
const bytes = (text: string) => new TextEncoder().encode(text)
const texts = (lines: ReadonlyArray<Uint8Array>) => lines.map((line) => Buffer.from(line).toString("latin1"))

describe("lines cut out of pieces", () => {
  it("keeps empty lines and the last one without a newline", () => {
    assert.deepStrictEqual(texts(cut(100, [bytes("a\n\nb"), bytes("c\nd")])), ["a", "", "bc", "d"])
    assert.deepStrictEqual(texts(cut(100, [bytes("a\n")])), ["a"])
    assert.deepStrictEqual(texts(cut(100, [])), [])
  })

  it("cuts what is too long into several, nothing lost", () => {
    assert.deepStrictEqual(texts(cut(3, [bytes("ab"), bytes("cdefg\nh")])), ["abc", "def", "g", "h"])
    assert.deepStrictEqual(texts(cut(3, [bytes("abc\nabc")])), ["abc", "abc"])
  })

  it("gives the same lines for any pieces", () => {
    const random = randomOf(7)
    for (let round = 0; round < 200; round++) {
      const whole = Uint8Array.from({ length: random(200) }, () => random(4) === 0 ? 10 : random(256))
      const pieces: Array<Uint8Array> = []
      for (let at = 0; at < whole.length;) {
        const next = Math.min(whole.length, at + 1 + random(20))
        pieces.push(whole.subarray(at, next))
        at = next
      }
      const text = Buffer.from(whole).toString("latin1")
      const expected = text === "" ? [] : (text.endsWith("\n") ? text.slice(0, -1) : text).split("\n")
      assert.deepStrictEqual(texts(cut(1000, pieces)), expected)
    }
  })
})
