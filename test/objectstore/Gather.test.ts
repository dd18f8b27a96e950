import { assert, describe, it } from "@effect/vitest"
import { makeGather } from "../../src/layers/objectstore/Gather.ts"

const PART = 256 * 1024

describe("gathered parts", () => {
  it("have the memory of two parts together, however they come back", () => {
    const gather = makeGather(PART)
    const memory = new Set<ArrayBufferLike>()
    const onTheirWay: Array<ReturnType<typeof gather.take>> = []
    for (let part = 0; part < 12; part++) {
      assert.strictEqual(gather.add(Buffer.alloc(PART + 1, part)).length, 1)
      const taken = gather.take()
      memory.add(taken.bytes.buffer)
      assert.isTrue(taken.bytes.equals(Buffer.alloc(PART, part)))
      onTheirWay.push(taken)
      // As many as may be: now the older, now the younger one has been sent.
      const [sent] = onTheirWay.length < 2 ? [] : onTheirWay.splice(part % 2, 1)
      if (sent !== undefined) gather.giveBack(sent)
    }
    assert.strictEqual(memory.size, 2)
  })
})
