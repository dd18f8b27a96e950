import { assert, describe, it } from "@effect/vitest"
import { LogRecent } from "../../src/layers/log/LogRecent.ts"
import { advance, type Place, start } from "../../src/layers/log/LogRun.ts"
import type { StreamName } from "../../src/schemas/Outcome.ts"

/** Chunks one after the other, and somebody who reads along. */
const filled = (chunks: ReadonlyArray<readonly [StreamName, string]>) => {
  const recent = new LogRecent()
  let place: Place = start
  for (const [stream, text] of chunks) {
    recent.from("all", 0, 1)
    recent.push(stream, place, Buffer.from(text))
    place = advance(place, stream, text.length)
  }
  return recent
}

const textOf = (recent: LogRecent, stream: StreamName | "all", offset: number, maxBytes = 1000) =>
  recent.from(stream, offset, maxBytes)?.map(({ bytes }) => Buffer.from(bytes).toString())

describe("the newest bytes of a log", () => {
  const recent = () => filled([["stdout", "abc"], ["stderr", "XY"], ["stdout", "def"], ["stderr", "Z"]])

  it("come from any offset, each stream by its own", () => {
    assert.deepStrictEqual(textOf(recent(), "all", 0), ["abc", "XY", "def", "Z"])
    assert.deepStrictEqual(textOf(recent(), "all", 4), ["Y", "def", "Z"])
    assert.deepStrictEqual(textOf(recent(), "stdout", 2), ["c", "def"])
    assert.deepStrictEqual(textOf(recent(), "stderr", 0), ["XY", "Z"])
    assert.deepStrictEqual(textOf(recent(), "stdout", 6), [])
    assert.deepStrictEqual(textOf(recent(), "all", 0, 4), ["abc", "XY"])
    assert.deepStrictEqual(recent().from("stderr", 1, 9)?.map(({ all, at }) => [at, all]), [[1, 4], [2, 8]])
  })

  it("are held up to a bound; what is older comes from elsewhere", () => {
    const chunk = "x".repeat(65_536)
    const recent = filled(Array.from({ length: 40 }, () => ["stdout", chunk] as const))
    assert.isUndefined(recent.from("stdout", 0, 1))
    assert.isUndefined(recent.from("stdout", 23 * 65_536, 1))
    assert.strictEqual(recent.from("stdout", 24 * 65_536, 1e9)?.length, 16)
  })

  it("are not held while nobody reads, and are again when somebody does", () => {
    const recent = new LogRecent()
    recent.push("stdout", start, Buffer.from("abc"))
    assert.isUndefined(recent.from("stdout", 0, 1))
    recent.push("stdout", { stdout: 3, stderr: 0 }, Buffer.from("def"))
    assert.deepStrictEqual(textOf(recent, "stdout", 3), ["def"])
    recent.push("stdout", { stdout: 6, stderr: 0 }, Buffer.alloc(2 * 1024 * 1024))
    assert.isUndefined(recent.from("stdout", 3, 1))
  })

  it("are copied when they are small, and only then", () => {
    const recent = filled([["stderr", ""]])
    const small = Buffer.from("small")
    const large = Buffer.alloc(5000, "l")
    recent.push("stdout", start, small)
    recent.push("stdout", { stdout: 5, stderr: 0 }, large)
    small.fill("?")
    const [first, second] = recent.from("stdout", 0, 9999) ?? []
    assert.strictEqual(Buffer.from(first?.bytes ?? []).toString(), "small")
    assert.strictEqual(second?.bytes.buffer, large.buffer)
  })
})
