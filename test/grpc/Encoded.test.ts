import { create, fromBinary, toBinary } from "@bufbuild/protobuf"
import { assert, describe, it } from "@effect/vitest"
import { followOutput } from "../../src/layers/grpc/Encoded.ts"
import { FollowResponseSchema, OutputStream } from "../../src/layers/grpc/gen/stoker/v1/stoker_pb.js"
import type { StreamName } from "../../src/schemas/Outcome.ts"

const memory = Uint8Array.from({ length: 1000 }, (_, n) => n & 0xff)

const entry = (offset: number, from: number, to: number, stream: StreamName = "stdout") =>
  ({ _tag: "Bytes", stream, offset, bytes: memory.subarray(from, to) }) as const

/** Offset, stream and bytes of each message, as a client has them. */
const heard = (given: ReturnType<typeof entry>) =>
  followOutput(given).map(({ bytes }) => {
    const { event } = fromBinary(FollowResponseSchema, bytes)
    assert.strictEqual(event.case, "output")
    const { content, stream } = event.value as Extract<typeof event, { readonly case: "output" }>["value"]
    return content.case === "bytes" ? [Number(content.value.offset), stream, [...content.value.data]] : content
  })

describe("an entry of a log as messages that are bytes already", () => {
  it("is the same message for all who follow", () => {
    // Each read gives a view of its own of the same memory.
    assert.strictEqual(followOutput(entry(7, 100, 200)), followOutput(entry(7, 100, 200)))
  })

  it("is another one where anything is another", () => {
    const said = (offset: number, from: number, to: number, stream: 1 | 2) => [
      [offset, stream, [...memory.subarray(from, to)]]
    ]
    assert.deepStrictEqual(heard(entry(7, 100, 200)), said(7, 100, 200, 1))
    assert.deepStrictEqual(heard(entry(8, 100, 200)), said(8, 100, 200, 1))
    assert.deepStrictEqual(heard(entry(8, 101, 201)), said(8, 101, 201, 1))
    assert.deepStrictEqual(heard(entry(8, 101, 200)), said(8, 101, 200, 1))
    assert.deepStrictEqual(heard(entry(8, 101, 200, "stderr")), said(8, 101, 200, 2))
    const copied = { ...entry(8, 0, 0, "stderr"), bytes: Uint8Array.from([1]) }
    assert.deepStrictEqual(heard(copied), [[8, 2, [1]]])
  })

  it("is several when it is large", () => {
    const large = { ...entry(5, 0, 0), bytes: new Uint8Array(600 * 1024).fill(9) }
    assert.deepStrictEqual(heard(large).map((one) => Array.isArray(one) ? one[0] : one), [5, 262_149, 524_293])
  })
})

describe("a message whose bytes are copied once", () => {
  it("is what the library makes of it, byte by byte", () => {
    for (const length of [1, 2, 127, 128, 129, 16_383, 16_384, 70_000, 262_144]) {
      for (const offset of [0, 1, 127, 128, 2 ** 31, 2 ** 32, Number.MAX_SAFE_INTEGER]) {
        const bytes = Uint8Array.from({ length }, (_, n) => n * 7 & 0xff)
        for (const stream of ["stdout", "stderr"] as const) {
          const [made] = followOutput({ _tag: "Bytes", stream, offset, bytes })
          const value = {
            stream: stream === "stdout" ? OutputStream.STDOUT : OutputStream.STDERR,
            content: { case: "bytes", value: { offset: BigInt(offset), data: bytes } }
          } as const
          const message = create(FollowResponseSchema, { event: { case: "output", value } })
          assert.isTrue(Buffer.from(toBinary(FollowResponseSchema, message)).equals(made?.bytes ?? Buffer.alloc(0)))
        }
      }
    }
  })
})
