import { assert, describe, it } from "@effect/vitest"
import { Effect, Option } from "effect"
import { format, parse } from "../../src/schemas/TraceParent.ts"

const trace = "0af7651916cd43dd8448eb211c80319c"
const span = "b7ad6b7169203331"

describe("a traceparent", () => {
  it.effect("is read as W3C wants it, a later version with more fields too", () =>
    Effect.sync(() => {
      const ids = { traceId: trace, spanId: span }
      assert.deepStrictEqual(Option.getOrThrow(parse(`00-${trace}-${span}-01`)), { ...ids, sampled: true })
      assert.deepStrictEqual(Option.getOrThrow(parse(`00-${trace}-${span}-00`)), { ...ids, sampled: false })
      assert.deepStrictEqual(Option.getOrThrow(parse(`00-${trace}-${span}-03`)), { ...ids, sampled: true })
      assert.deepStrictEqual(Option.getOrThrow(parse(`cc-${trace}-${span}-01-what-will-be`)), { ...ids, sampled: true })
    }))

  it.effect("that is none is none, whatever a sender wrote", () =>
    Effect.sync(() => {
      const wrong = [
        undefined,
        "",
        "x",
        `ff-${trace}-${span}-01`,
        `00-${"0".repeat(32)}-${span}-01`,
        `00-${trace}-${"0".repeat(16)}-01`,
        `00-${trace.toUpperCase()}-${span}-01`,
        `00-${trace}-${span}-01-more`,
        `00-${trace}-${span}-1`,
        `00-${trace}${span}-01`,
        ` 00-${trace}-${span}-01`,
        `00-${trace}-${span}-01\n`
      ]
      assert.deepStrictEqual(wrong.filter((text) => Option.isSome(parse(text))), [])
    }))

  it.effect("is written so that it reads the same", () =>
    Effect.sync(() => {
      for (const sampled of [true, false]) {
        const ids = { traceId: trace, spanId: span, sampled }
        assert.deepStrictEqual(parse(format(ids)), Option.some(ids))
      }
    }))
})
