import { create, fromBinary, toBinary } from "@bufbuild/protobuf"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { jobOf } from "../../src/client/GrpcCodec.ts"
import { JobSchema } from "../../src/layers/grpc/gen/stoker/v1/stoker_pb.js"
import { jobMessage } from "../../src/layers/grpc/JobMessages.ts"
import { JobView } from "../../src/schemas/JobView.ts"

describe("a job over gRPC", () => {
  it.effect("comes back with what became of its files: there, in a bucket, missing", () =>
    Effect.gen(function*() {
      const view = yield* Schema.decodeUnknownEffect(JobView)({
        id: "one",
        owner: "ann",
        intake: "grpc",
        function: "container",
        state: "ended",
        attempt: 1,
        receivedAtMs: 1_700_000_000_000,
        artefacts: [{ path: "a", bytes: 2 ** 40, sha256: "0123456789abcdef".repeat(4) }],
        artefactsStored: [{ path: "b", bucket: "out-put", key: "run-b", bytes: 2 ** 40 + 1 }],
        artefactsMissing: [{ path: "c", reason: "there is no such file" }]
      })
      const wire = toBinary(JobSchema, create(JobSchema, jobMessage(view)))
      assert.deepStrictEqual(yield* jobOf(fromBinary(JobSchema, wire)), view)
    }))
})
