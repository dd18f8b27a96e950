/** `JobWorker.Worker`, as teleport-jobworker's clients know it. */
import { Effect, Stream } from "effect"
import type { SecureRandom } from "effect/crypto"
import { exitCode, limitsOf } from "../../schemas/dialects/JobWorker.ts"
import { InvalidRequest, type JobApi } from "../api/JobApi.ts"
import { Worker } from "./gen/JobWorker/worker_pb.js"
import { begin, commandRequest } from "./OldJobs.ts"
import { offer } from "./Service.ts"
import { TextLines } from "./TextLines.ts"

/** The old minute was longer than its own client waited (10 s), which then left a job that nobody could kill. */
const GRACE_MS = 5000

/** The service over the control plane. Ids are UUIDs. */
export const jobWorker = (api: JobApi["Service"], random: SecureRandom.SecureRandom["Service"]) =>
  offer(Worker, {
    start: Effect.fnUntraced(function*({ args, command, opts }, { caller }) {
      const limits = yield* Effect.mapError(Effect.fromResult(limitsOf(opts)), (bad) => new InvalidRequest(bad))
      const called = yield* commandRequest(command, args)
      const id = yield* random.uuidV4()
      return { id: (yield* begin(api, caller, { ...called, id, limits })).id }
    }),
    stop: ({ id }, { caller }) => Effect.as(api.stop(caller, { id, graceMs: GRACE_MS }), {}),
    status: ({ id }, { caller }) =>
      Effect.map(api.status(caller, { id }), (job) => ({
        jobStatus: { id: job.id, running: job.state === "running", exitCode: exitCode(job) }
      })),
    output: ({ follow, id }, { caller }) =>
      Effect.map(api.follow(caller, { id, wait: follow }), (events) =>
        Stream.mapAccum(events, () =>
          new TextLines(), (lines, event) => [
          lines,
          lines.of(event).map((bytes) => ({ bytes: bytes as Uint8Array<ArrayBuffer> }))
        ]))
  })
