/**
 * The gRPC door beside a bare server of the same libraries (grpc-js, protobuf-es, TLS 1.3 with client certificates) in the
 * same run: unary calls, a stream, and a thousand followers of one output. Behind the door is the tests' control plane in
 * memory, so that what is compared is the door alone. Each server is a process of its own; callers are here.
 */
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf"
import { timestampFromMs } from "@bufbuild/protobuf/wkt"
import { layerSecureRandom } from "@effect/platform-node/NodeCrypto"
import { Client, Server, type ServerUnaryCall, type ServerWritableStream } from "@grpc/grpc-js"
import { Effect, Layer, Logger } from "effect"
import { type ChildProcess, fork } from "node:child_process"
import { once } from "node:events"
import { clientCredentials, serverCredentials } from "../src/layers/api/GrpcTls.ts"
import { layerFixed, Tls } from "../src/layers/api/Tls.ts"
import type { TlsMaterial } from "../src/layers/api/TlsMaterial.ts"
import {
  FollowRequestSchema,
  FollowResponseSchema,
  type JobSchema,
  JobState,
  OutputStream,
  StartRequestSchema,
  StatusRequestSchema,
  StatusResponseSchema
} from "../src/layers/grpc/gen/stoker/v1/stoker_pb.js"
import { make } from "../src/layers/grpc/GrpcServer.ts"
import * as JobApiMemory from "../test/api/JobApiMemory.ts"
import { certificates } from "../test/support/Certs.ts"
import { percentile, publish, round } from "./report.ts"

const ROUNDS = Number(process.env["ROUNDS"] ?? 3)
const SECONDS = 4
const CONNECTIONS = 3
const IN_FLIGHT = 16
const FOLLOWERS = Number(process.env["FOLLOWERS"] ?? 1000)
const KIB_PER_SECOND = 64
const MIB = 1024 * 1024

const service = "/stoker.v1.JobService"
const plain = (bytes: Buffer) => bytes

/** The tests' control plane knows what these words mean. */
const startMessage = (id: string, argv: ReadonlyArray<string>) =>
  create(StartRequestSchema, { id, waitSeconds: 5, job: { case: "command", value: { argv: [...argv] } } })

const ours = Effect.gen(function*() {
  const { port } = yield* make({ listen: "127.0.0.1:0" })
  return port
})

/** What everybody would write first: no rights, no state, nothing but the libraries. */
const bare = Effect.gen(function*() {
  const credentials = yield* serverCredentials(yield* Tls)
  const server = new Server()
  const peers = new Map<string, unknown>()
  const job = {
    owner: "alice",
    intake: "api",
    function: "command",
    argsJson: "{\"argv\":[\"echo\"]}",
    state: JobState.ENDED,
    attempt: 1,
    instance: "w1",
    receivedAt: timestampFromMs(1.7e12),
    startedAt: timestampFromMs(1.7e12),
    endedAt: timestampFromMs(1.7e12),
    outcome: { kind: { case: "exited", value: { phase: "run", code: 0 } }, summary: "succeeded" },
    usage: { phases: [{ phase: "run", wallMicros: 5n }] }
  } satisfies MessageInitShape<typeof JobSchema>
  const definition = (name: string, responseStream: boolean) => ({
    path: `${service}/${name}`,
    requestStream: false,
    responseStream,
    requestSerialize: plain,
    requestDeserialize: plain,
    responseSerialize: plain,
    responseDeserialize: plain
  })
  const data = new Uint8Array(65_536)
  server.addService({ status: definition("Status", false), follow: definition("Follow", true) }, {
    // Decoding and encoding are part of what is compared, and whose call it is, looked up once for each peer.
    status: (call: ServerUnaryCall<Buffer, Buffer>, callback: (error: null, value: Buffer) => void) => {
      const peer = call.getPeer()
      if (!peers.has(peer)) peers.set(peer, call.getAuthContext().sslPeerCertificate?.subject.CN)
      const { id } = fromBinary(StatusRequestSchema, call.request)
      callback(null, Buffer.from(toBinary(StatusResponseSchema, create(StatusResponseSchema, { job: { ...job, id } }))))
    },
    follow: (call: ServerWritableStream<Buffer, Buffer>) => {
      let offset = 0n
      let isOver = false
      call.once("cancelled", () => isOver = true)
      const go = () => {
        for (;;) {
          if (isOver) return
          const value = { stream: OutputStream.STDOUT, content: { case: "bytes", value: { offset, data } } } as const
          const message = create(FollowResponseSchema, { event: { case: "output", value } })
          offset += 65_536n
          if (!call.write(Buffer.from(toBinary(FollowResponseSchema, message)))) return void call.once("drain", go)
        }
      }
      go()
    }
  })
  return yield* Effect.callback<number, Error>((resume) =>
    server.bindAsync(
      "127.0.0.1:0",
      credentials,
      (error, port) => resume(error === null ? Effect.succeed(port) : Effect.fail(error))
    )
  )
})

/** A server until its parent goes. Told `cpu`, it says what it used. */
const serveUntilGone = async (kind: string, material: TlsMaterial) => {
  const services = Layer.mergeAll(JobApiMemory.layer, layerFixed(material), layerSecureRandom, Logger.layer([]))
  process.on("message", () => {
    const { system, user } = process.cpuUsage()
    process.send?.({ cpu: (system + user) / 1000, rss: process.memoryUsage.rss() })
  })
  await Effect.runPromise(
    Effect.scoped(Effect.flatMap(kind === "ours" ? ours : bare, (port) => {
      process.send?.({ port })
      return Effect.callback<void>((resume) => void process.once("disconnect", () => resume(Effect.void)))
    })).pipe(Effect.provide(services))
  )
}

/** Milliseconds of CPU and bytes of memory of a server. */
const used = async (server: ChildProcess) => {
  const answer = once(server, "message")
  server.send("used")
  const [told] = await answer
  return told as { readonly cpu: number; readonly rss: number }
}

interface Side {
  readonly server: ChildProcess
  readonly clients: ReadonlyArray<Client>
}

const begin = async (kind: string, server: TlsMaterial, alice: TlsMaterial): Promise<Side> => {
  const child = fork(import.meta.filename, [kind])
  child.send(server)
  const [told] = await once(child, "message")
  const { port } = told as { readonly port: number }
  const clients = Array.from(
    { length: CONNECTIONS },
    () => new Client(`localhost:${port}`, clientCredentials(alice), { "grpc.use_local_subchannel_pool": 1 })
  )
  return { server: child, clients }
}

const unary = (client: Client, name: string, request: Uint8Array) =>
  new Promise<Buffer>((resolve, reject) =>
    client.makeUnaryRequest(`${service}/${name}`, plain, plain, Buffer.from(request), (error, value) => {
      if (error === null && value !== undefined) resolve(value)
      else reject(error ?? new Error("no answer"))
    })
  )

/** Calls a second, and the server's CPU for each in microseconds. */
const unaryRate = async ({ clients, server }: Side, request: Uint8Array) => {
  const before = await used(server)
  const until = performance.now() + SECONDS * 1000
  let calls = 0
  await Promise.all(Array.from({ length: IN_FLIGHT }, async (_, n) => {
    const client = clients[n % clients.length]
    if (client === undefined) throw new Error("no client")
    while (performance.now() < until) {
      await unary(client, "Status", request)
      calls += 1
    }
  }))
  const after = await used(server)
  return { rate: calls / SECONDS, cpu: (after.cpu - before.cpu) * 1000 / calls }
}

const streamOf = (client: Client, request: Uint8Array, seen: (bytes: number) => void) => {
  const call = client.makeServerStreamRequest(`${service}/Follow`, plain, plain, Buffer.from(request))
  call.on("data", (message: Buffer) => seen(message.length))
  call.on("error", () => undefined)
  return call
}

/** MB a second of one stream. */
const streamRate = async ({ clients, server }: Side, request: Uint8Array) => {
  const before = await used(server)
  let bytes = 0
  const [client] = clients
  if (client === undefined) throw new Error("no client")
  const call = streamOf(client, request, (length) => bytes += length)
  await new Promise((resolve) => setTimeout(resolve, SECONDS * 1000))
  call.cancel()
  const after = await used(server)
  return { rate: bytes / 1e6 / SECONDS, cpu: (after.cpu - before.cpu) / (bytes / MIB) }
}

const median = (values: ReadonlyArray<number>) => percentile(values, 0.5)

const main = async () => {
  const { alice, server } = await certificates()
  const sides = { ours: await begin("ours", server, alice), bare: await begin("bare", server, alice) }
  const [first] = sides.ours.clients
  if (first === undefined) throw new Error("no client")
  const startJob = (id: string, ...argv: ReadonlyArray<string>) =>
    unary(first, "Start", toBinary(StartRequestSchema, startMessage(id, argv)))
  await startJob("echo", "echo")
  await startJob("flood", "flood")
  const status = toBinary(StatusRequestSchema, create(StatusRequestSchema, { id: "echo" }))
  const follow = (id: string) => toBinary(FollowRequestSchema, create(FollowRequestSchema, { id }))

  const measured = { ours: { unary: [], stream: [] }, bare: { unary: [], stream: [] } } as Record<
    "ours" | "bare",
    Record<"unary" | "stream", Array<{ readonly rate: number; readonly cpu: number }>>
  >
  // The first round is for compilers to warm up.
  for (let round = 0; round <= ROUNDS; round++) {
    for (const kind of ["bare", "ours"] as const) {
      const calls = await unaryRate(sides[kind], status)
      const stream = await streamRate(sides[kind], follow("flood"))
      if (round === 0) continue
      measured[kind].unary.push(calls)
      measured[kind].stream.push(stream)
    }
  }
  const of = (kind: "ours" | "bare", what: "unary" | "stream", part: "rate" | "cpu") =>
    median(measured[kind][what].map((one) => one[part]))

  // Eight pieces a second.
  const paced = (id: string) => startJob(id, "pace", String(KIB_PER_SECOND * 128), "125")
  const followed = async (id: string, count: number) => {
    await paced(id)
    const before = await used(sides.ours.server)
    const bytes = Array.from({ length: count }, () => 0)
    const calls = bytes.map((_, n) => {
      const client = sides.ours.clients[n % CONNECTIONS]
      if (client === undefined) throw new Error("no client")
      return streamOf(client, follow(id), (length) => bytes[n] = (bytes[n] ?? 0) + length)
    })
    await new Promise((resolve) => setTimeout(resolve, 15_000))
    const after = await used(sides.ours.server)
    for (const call of calls) call.cancel()
    return { slowest: Math.min(...bytes) / 1024 / 15, residentKiB: (after.rss - before.rss) / 1024 / count }
  }
  const alone = await followed("alone", 1)
  const crowd = await followed("crowd", FOLLOWERS)

  const held = publish({
    name: "grpc",
    figures: {
      "Status per s, ours": round(of("ours", "unary", "rate")),
      "Status per s, bare": round(of("bare", "unary", "rate")),
      "Status CPU µs, ours": round(of("ours", "unary", "cpu")),
      "Status CPU µs, bare": round(of("bare", "unary", "cpu")),
      "stream MB per s, ours": round(of("ours", "stream", "rate")),
      "stream MB per s, bare": round(of("bare", "stream", "rate")),
      "stream CPU ms per MiB, ours": round(of("ours", "stream", "cpu")),
      "stream CPU ms per MiB, bare": round(of("bare", "stream", "cpu")),
      "followers": FOLLOWERS,
      "KiB per s, alone": round(alone.slowest),
      "KiB per s, slowest follower": round(crowd.slowest),
      "follower's resident KiB": round(crowd.residentKiB)
    },
    claims: [
      {
        claim: "Status over gRPC: a bare server's calls for each of ours",
        measured: of("bare", "unary", "rate") / of("ours", "unary", "rate"),
        bound: 1.25,
        unit: ""
      },
      {
        claim: "a followed output over gRPC: a bare stream's bytes for each of ours",
        measured: of("bare", "stream", "rate") / of("ours", "stream", "rate"),
        bound: 1.25,
        unit: ""
      },
      {
        claim: `the slowest of ${FOLLOWERS} gRPC followers is behind one alone by`,
        measured: 100 * (1 - crowd.slowest / alone.slowest),
        bound: 10,
        unit: "%"
      }
    ]
  })
  for (const side of Object.values(sides)) {
    for (const client of side.clients) client.close()
    side.server.disconnect()
  }
  process.exitCode = held ? 0 : 1
}

const [kind] = process.argv.slice(2)
if (kind === undefined) await main()
else {
  // Not on the command line, which everybody can read.
  const [material] = await once(process, "message")
  await serveUntilGone(kind, material as TlsMaterial)
}
// grpc-js keeps timers of channels that are closed.
process.exit()
