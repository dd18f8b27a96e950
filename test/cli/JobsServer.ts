/** A gRPC door with the built-in functions behind it, and jobs that go as the RFD's transcripts tell. */
import { layerSecureRandom } from "@effect/platform-node/NodeCrypto"
import { Effect, Layer, ManagedRuntime, Scope, Stream } from "effect"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { builtIns } from "../../src/functions/BuiltIn.ts"
import {
  type FollowEvent,
  INTAKE,
  InvalidRequest,
  JobApi,
  NotEnded,
  type StartRequest,
  UnknownJob
} from "../../src/layers/api/JobApi.ts"
import { layerFixed } from "../../src/layers/api/Tls.ts"
import { functionViewOf } from "../../src/layers/api/Views.ts"
import { make } from "../../src/layers/grpc/GrpcServer.ts"
import { FunctionName, JobId, Owner } from "../../src/schemas/Ids.ts"
import type { JobView } from "../../src/schemas/JobView.ts"
import { Outcome } from "../../src/schemas/Outcome.ts"
import { certificates, type MaterialFiles, writeMaterial } from "../support/Certs.ts"

const began = Date.UTC(2022, 6, 7, 16, 34, 3)
const utf8 = new TextEncoder()

/** Output of the RFD's job, and of one that is no text. */
const outputs: Readonly<Record<string, ReadonlyArray<readonly [stream: "stdout" | "stderr", bytes: Uint8Array]>>> = {
  XE38YM: [
    ["stdout", utf8.encode("[FIB] Calculating the value of the 3rd value in the Fibonacci sequence\n[FIB] Using look")],
    ["stdout", utf8.encode("up; value is '1'.\n[RESULT] 1\n")]
  ],
  BINARY: [
    ["stdout", Uint8Array.from({ length: 256 }, (_, n) => n)],
    ["stderr", utf8.encode("not text\n")],
    ["stdout", new Uint8Array([0xff, 0xfe])]
  ]
}

const viewOf = (id: string, name: string, args: JobView["args"], outcome: Outcome): JobView => ({
  id: JobId.make(id),
  owner: Owner.make("alice"),
  intake: INTAKE,
  function: FunctionName.make(name),
  ...(args === undefined ? {} : { args }),
  state: "ended",
  attempt: 1,
  receivedAtMs: began,
  startedAtMs: began,
  endedAtMs: began + 1000,
  outcome
})

const exited = (code: number) => Outcome.cases.Exited.make({ phase: "run", code })

/** The jobs there are. */
const jobs: ReadonlyArray<JobView> = [
  viewOf("XE38YM", "fib", { number: 3 }, exited(0)),
  viewOf("BINARY", "command", { argv: ["cat"] }, exited(3)),
  viewOf("STOPPED", "noop", {}, Outcome.cases.Stopped.make({ reason: "enough" }))
]

const api = (started: Array<StartRequest>) => {
  const find = ({ id }: { readonly id: string }) => {
    const found = jobs.find((job) => job.id === id)
    return found === undefined ? Effect.fail(new UnknownJob({ id })) : Effect.succeed(found)
  }
  return JobApi.of({
    start: (_, request) => {
      started.push(request)
      const [first] = jobs
      return first === undefined || request.id === "refused"
        ? Effect.fail(new InvalidRequest({ reason: "not that one", remedy: "Choose another." }))
        : Effect.succeed({ ...first, function: FunctionName.make(request.function) })
    },
    stop: (_, ref) => find(ref),
    status: (_, ref) => find(ref),
    list: (_, { limit = 100 }) => Effect.succeed({ jobs: jobs.slice(0, limit) }),
    read: (_, ref) => Effect.fail(new UnknownJob(ref)),
    artefact: (_, ref) => Effect.fail(new UnknownJob(ref)),
    functions: () => Effect.succeed(builtIns.map(functionViewOf)),
    remove: (_, ref) =>
      Effect.flatMap(find(ref), ({ id }) => id === "BINARY" ? Effect.fail(new NotEnded({ id })) : Effect.void),
    follow: (_, { from = { offset: 0 }, ...ref }) =>
      Effect.map(find(ref), (job) => {
        const begin = "offset" in from ? from.offset : 0
        let offset = 0
        const pieces = (outputs[job.id] ?? []).map(([stream, bytes]): FollowEvent => {
          const event: FollowEvent = { _tag: "Bytes", stream, offset, bytes }
          offset += bytes.length
          return event
        })
        const events: ReadonlyArray<FollowEvent> = [
          { _tag: "Begun", run: "r", attempt: 1, offset: begin },
          ...pieces,
          { _tag: "Ended", job, end: { summaries: [], complete: true } }
        ]
        return Stream.fromIterable(events)
      })
  })
}

/** What a test needs of it. */
export interface JobsServer {
  readonly env: NodeJS.ProcessEnv
  readonly url: string
  readonly files: MaterialFiles
  /** Requests to start, in order. */
  readonly started: ReadonlyArray<StartRequest>
  readonly close: () => Promise<void>
}

/** Opens it at a free port; alice's certificate is in the environment. */
export const jobsServer = async (): Promise<JobsServer> => {
  const { alice, server } = await certificates()
  const folder = mkdtempSync(join(tmpdir(), "stoker-jobs-"))
  const files = writeMaterial(folder, "alice", alice)
  const started: Array<StartRequest> = []
  const runtime = ManagedRuntime.make(
    Layer.mergeAll(Layer.succeed(JobApi, api(started)), layerFixed(server), layerSecureRandom)
  )
  const scope = await runtime.scope
  const { port } = await runtime.runPromise(Effect.provideService(make({ listen: "127.0.0.1:0" }), Scope.Scope, scope))
  const url = `grpc://localhost:${port}`
  return {
    url,
    files,
    started,
    env: { STOKER_SERVER: url, STOKER_CA: files.ca, STOKER_CERT: files.cert, STOKER_KEY: files.key, TZ: "UTC" },
    close: async () => {
      await runtime.dispose()
      rmSync(folder, { recursive: true, force: true })
    }
  }
}
