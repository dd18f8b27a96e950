import { create } from "@bufbuild/protobuf"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { StartRequestSchema } from "../../src/layers/grpc/gen/stoker/v1/stoker_pb.js"
import { startRequest } from "../../src/layers/grpc/StartMessages.ts"

const called = (argsJson: string) =>
  startRequest(
    create(StartRequestSchema, {
      job: { case: "call", value: { function: "say", args: { case: "argsJson", value: argsJson } } }
    }),
    undefined
  )

describe("arguments as JSON over gRPC", () => {
  // Four megabytes of brackets held up everybody else for five seconds.
  it.effect("are refused where they are nested without end, before anybody looks into them", () =>
    Effect.gen(function*() {
      const deep = (levels: number) => `${"[".repeat(levels)}${"]".repeat(levels)}`
      const { reason } = yield* Effect.flip(called(deep(1_500_000)))
      assert.strictEqual(reason, "args_json is nested deeper than 200 levels")
      assert.deepInclude(yield* called(`{"a": ${deep(50)}, "b": "[[["}`), { function: "say" })
    }))
})
