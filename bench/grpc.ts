/**
 * The gRPC door of a whole worker (journal, log, oci sandboxes, mutual TLS), a process of its own. Beside a bare server of the
 * same libraries in the same run: unary calls, and a stream. And a real job's followers: what a thousand of them cost it
 * and the server, and how long a byte takes from a write in the sandbox to a follower. `grpc.ts [FOLLOWERS]`, ROUNDS and
 * SECONDS in the environment.
 */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf"
import { Client } from "@grpc/grpc-js"
import { type ChildProcess, fork } from "node:child_process"
import { once } from "node:events"
import { rmSync } from "node:fs"
import { join } from "node:path"
import { clientCredentials } from "../src/layers/api/GrpcTls.ts"
import type { TlsMaterial } from "../src/layers/api/TlsMaterial.ts"
import {
  FollowRequestSchema,
  FollowResponseSchema,
  type Job,
  OutputStream,
  StartRequestSchema,
  StatusRequestSchema,
  StatusResponseSchema
} from "../src/layers/grpc/gen/stoker/v1/stoker_pb.js"
import { stateDirectory } from "../test/sandbox/Jobs.ts"
import { certificates, writeMaterial } from "../test/support/Certs.ts"
import { freePort } from "../test/support/Ports.ts"
import type { BareStart } from "./grpcBare.ts"
import { type Followed, type Following, patternInPython, STAMP } from "./grpcFollowers.ts"
import type { Used } from "./grpcUsed.ts"
import { percentile, publish, round, spread } from "./report.ts"

const FOLLOWERS = Number(process.argv[2] ?? 1000)
const ROUNDS = Number(process.env["ROUNDS"] ?? 3)
const SECONDS = Number(process.env["SECONDS"] ?? 4)
/** Of those that call, and of those that follow: fifty streams on each. */
const CONNECTIONS = 3
const FOLLOWING_CONNECTIONS = 20
const IN_FLIGHT = 16
const MIB = 1024 * 1024

/** The followed job: eight blocks a second are 64 KiB. */
const BLOCK = 8192
const BLOCKS_PER_SECOND = 8
const JOB_SECONDS = 20
/** What the stream reads: kept whole by the job's log. */
const STORED_MIB = 64
/** The job of a few followers: so many lines, so often. */
const FEW = 3
const LINES = 2000
const LINE_MS = 5
const LINE = 64

const service = "/stoker.v1.JobService"
const plain = (bytes: Buffer) => bytes

/**
 * `count` blocks of `length` bytes, one each `ms`, each with the moment of its write. Says on stderr how long it took, and how
 * long of that it stood in a write, in seconds.
 */
const paced = (count: number, length: number, ms: number) => `
import os, sys, time
rest = ${patternInPython(length)}[${STAMP}:]
began = time.monotonic()
stood = 0
for n in range(${count}):
  time.sleep(max(0, began + n * ${ms} / 1000 - time.monotonic()))
  block = b"%019d\\n" % time.monotonic_ns() + rest
  before = time.monotonic()
  assert os.write(1, block) == ${length}
  stood += time.monotonic() - before
sys.stderr.write("%f %f" % (time.monotonic() - began, stood))
`

const stored = `
import os
block = bytes(65536)
for n in range(${STORED_MIB * 16}):
  view = memoryview(block)
  while view:
    view = view[os.write(1, view):]
`

/** What the server has used by now. */
const used = async (server: ChildProcess, how: "used" | "held" = "used") => {
  const answer = once(server, "message")
  server.send(how)
  const [told] = await answer
  return told as Used
}

interface Side {
  readonly server: ChildProcess
  readonly port: number
  readonly clients: ReadonlyArray<Client>
}

const sideOf = (server: ChildProcess, port: number, alice: TlsMaterial): Side => ({
  server,
  port,
  clients: Array.from(
    { length: CONNECTIONS },
    () => new Client(`localhost:${port}`, clientCredentials(alice), { "grpc.use_local_subchannel_pool": 1 })
  )
})

const child = (name: string, args: ReadonlyArray<string> = []) => {
  const made = fork(join(import.meta.dirname, name), [...args])
  made.once("exit", (code) => {
    if (code !== 0 && code !== null) throw new Error(`${name} ended with ${code}`)
  })
  return made
}

const firstOf = ({ clients: [client] }: Side) => {
  if (client === undefined) throw new Error("no client")
  return client
}

const unary = (client: Client, name: string, request: Uint8Array) =>
  new Promise<Buffer>((resolve, reject) =>
    client.makeUnaryRequest(`${service}/${name}`, plain, plain, Buffer.from(request), (error, value) => {
      if (error === null && value !== undefined) resolve(value)
      else reject(error ?? new Error("no answer"))
    })
  )

const followRequest = (id: string, stream = OutputStream.STDOUT) =>
  toBinary(FollowRequestSchema, create(FollowRequestSchema, { id, stream }))

/** All of a stream of a job, and how the job ended. */
const allOf = (side: Side, id: string, stream = OutputStream.STDOUT) =>
  new Promise<{ readonly text: string; readonly job: Job | undefined }>((resolve, reject) => {
    const call = firstOf(side).makeServerStreamRequest(
      `${service}/Follow`,
      plain,
      plain,
      Buffer.from(followRequest(id, stream))
    )
    const pieces: Array<Uint8Array> = []
    let job: Job | undefined
    call.on("data", (message: Buffer) => {
      const { event } = fromBinary(FollowResponseSchema, message)
      if (event.case === "output" && event.value.content.case === "bytes") pieces.push(event.value.content.value.data)
      if (event.case === "ended") job = event.value.job
    })
    call.on("error", reject)
    call.on("end", () => resolve({ text: Buffer.concat(pieces).toString(), job }))
  })

/** Answers when the job runs. */
const startJob = (side: Side, id: string, argv: ReadonlyArray<string>) =>
  unary(
    firstOf(side),
    "Start",
    toBinary(
      StartRequestSchema,
      create(StartRequestSchema, {
        id,
        waitSeconds: 30,
        limits: { wallMs: 120_000n, cpuMs: 60_000n, outputBytes: BigInt(2 * STORED_MIB * MIB) },
        job: { case: "command", value: { argv: [...argv] } }
      })
    )
  )

/** Waits until it has succeeded; what it said on stderr. */
const ended = async (side: Side, id: string) => {
  const { job, text } = await allOf(side, id, OutputStream.STDERR)
  if (job?.outcome?.summary !== "succeeded") {
    throw new Error(`${id} came to ${job?.outcome?.summary ?? "nothing"}: ${text}`)
  }
  return text
}

const python = (program: string) => ["/usr/bin/python3", "-c", program]

interface Measured {
  readonly rate: number
  readonly cpu: number
}

/** Calls a second, and the server's CPU for each in microseconds. */
const unaryRate = async ({ clients, server }: Side, request: Uint8Array): Promise<Measured> => {
  const before = await used(server)
  const began = performance.now()
  const until = began + SECONDS * 1000
  let calls = 0
  await Promise.all(Array.from({ length: IN_FLIGHT }, async (_, n) => {
    const client = clients[n % clients.length]
    if (client === undefined) throw new Error("no client")
    while (performance.now() < until) {
      await unary(client, "Status", request)
      calls += 1
    }
  }))
  const seconds = (performance.now() - began) / 1000
  const after = await used(server)
  return { rate: calls / seconds, cpu: (after.cpu - before.cpu) * 1000 / calls }
}

/** MB a second of one stream at a time, begun anew when it ends; the server's CPU in milliseconds for each MiB. */
const streamRate = async (side: Side, request: Uint8Array): Promise<Measured> => {
  const before = await used(side.server)
  const began = performance.now()
  const until = began + SECONDS * 1000
  let bytes = 0
  while (performance.now() < until) {
    const call = firstOf(side).makeServerStreamRequest(`${service}/Follow`, plain, plain, Buffer.from(request))
    const timer = setTimeout(() => call.cancel(), Math.max(1, until - performance.now()))
    call.on("data", (message: Buffer) => bytes += message.length)
    await new Promise<void>((resolve) => {
      call.on("error", () => resolve())
      call.on("end", () => resolve())
    })
    clearTimeout(timer)
  }
  const seconds = (performance.now() - began) / 1000
  const after = await used(side.server)
  return { rate: bytes / 1e6 / seconds, cpu: (after.cpu - before.cpu) / (bytes / MIB) }
}

/** A job and who follows it, from before its first byte to its end. */
const followed = async (
  side: Side,
  material: TlsMaterial,
  job: { readonly id: string; readonly count: number; readonly length: number; readonly ms: number },
  followers: number
) => {
  const client = followers === 0 ? undefined : child("grpcFollowers.ts")
  const seen = client === undefined ? undefined : once(client, "message")
  const before = await used(side.server, "held")
  await startJob(side, job.id, python(paced(job.count, job.length, job.ms)))
  client?.send(
    {
      port: side.port,
      material,
      request: [...followRequest(job.id)],
      connections: Math.min(followers, FOLLOWING_CONNECTIONS),
      followers,
      bytes: job.count * job.length,
      block: job.length
    } satisfies Following
  )
  await new Promise((resolve) => setTimeout(resolve, 0.5 * job.count * job.ms))
  const middle = await used(side.server)
  // Late, because it stops the server for as long as it takes to collect.
  await new Promise((resolve) => setTimeout(resolve, 0.4 * job.count * job.ms))
  const late = await used(side.server, "held")
  const [seconds = Number.NaN, stood = Number.NaN] = (await ended(side, job.id)).split(" ").map(Number)
  const after = await used(side.server)
  const [told] = seen === undefined ? [{ wrong: 0, messages: 0, lags: [], cpu: 0 }] : await seen
  return {
    ...(told as Followed),
    seconds,
    stood,
    serverCpu: after.cpu - before.cpu,
    heldKiB: (late.held - before.held) / 1024 / followers,
    residentKiB: (Math.max(middle.resident, late.resident) - before.resident) / 1024 / followers
  }
}

const median = (values: ReadonlyArray<number>) => percentile(values, 0.5)

const measureBoth = async (sides: { readonly ours: Side; readonly bare: Side }) => {
  const status = toBinary(StatusRequestSchema, create(StatusRequestSchema, { id: "stored" }))
  const measured: Record<"ours" | "bare", Record<"unary" | "stream", Array<Measured>>> = {
    ours: { unary: [], stream: [] },
    bare: { unary: [], stream: [] }
  }
  // The first round is for compilers to warm up.
  for (let round = 0; round <= ROUNDS; round++) {
    for (const kind of ["bare", "ours"] as const) {
      const calls = await unaryRate(sides[kind], status)
      const stream = await streamRate(sides[kind], followRequest("stored"))
      if (round === 0) continue
      measured[kind].unary.push(calls)
      measured[kind].stream.push(stream)
    }
  }
  return (kind: "ours" | "bare", what: "unary" | "stream", part: "rate" | "cpu") =>
    median(measured[kind][what].map((one) => one[part]))
}

const main = async () => {
  const { alice, server } = await certificates()
  const state = stateDirectory()
  const certs = join(state, "certs")
  writeMaterial(certs, "server", server)
  const port = await freePort()
  const worker = child("grpcWorker.ts", [state, `${port}`, certs])
  await once(worker, "message")
  const ours = sideOf(worker, port, alice)

  await startJob(ours, "stored", python(stored))
  await ended(ours, "stored")
  const status = toBinary(StatusRequestSchema, create(StatusRequestSchema, { id: "stored" }))
  const answer = await unary(firstOf(ours), "Status", status)
  const other = child("grpcBare.ts")
  const listens = once(other, "message")
  other.send({ material: server, status: [...answer] } satisfies BareStart)
  const [told] = await listens
  const bare = sideOf(other, (told as { readonly port: number }).port, alice)
  const same = await unary(firstOf(bare), "Status", status)
  const { job } = fromBinary(StatusResponseSchema, same)
  if (job?.id !== "stored" || same.length !== answer.length) throw new Error("the bare server answers otherwise")

  const of = await measureBoth({ ours, bare })
  other.disconnect()

  const steady = { count: JOB_SECONDS * BLOCKS_PER_SECOND, length: BLOCK, ms: 1000 / BLOCKS_PER_SECOND }
  const alone = await followed(ours, alice, { id: "alone", ...steady }, 0)
  const few = await followed(ours, alice, { id: "few", count: LINES, length: LINE, ms: LINE_MS }, FEW)
  const crowd = await followed(ours, alice, { id: "crowd", ...steady }, FOLLOWERS)

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
      "their connections": Math.min(FOLLOWERS, FOLLOWING_CONNECTIONS),
      "job at 64 KiB/s without followers, s": round(alone.seconds),
      "the same with all followers, s": round(crowd.seconds),
      "the job's time in write without followers, ms": round(alone.stood * 1000),
      "the same with all followers, ms": round(crowd.stood * 1000),
      "messages to all followers": crowd.messages,
      "server's CPU for each message, µs": round((crowd.serverCpu - alone.serverCpu) * 1000 / crowd.messages),
      "server's CPU with all followers, % of a core": round(crowd.serverCpu / crowd.seconds / 10),
      "followers' own CPU, % of a core": round(crowd.cpu / crowd.seconds / 10),
      "memory held for each follower, KiB": round(crowd.heldKiB),
      "resident memory for each follower with V8's garbage, KiB": round(crowd.residentKiB),
      ...spread(`write to each of ${FOLLOWERS} followers, ms`, crowd.lags),
      ...spread(`write to each of ${FEW} followers, ms`, few.lags)
    },
    claims: [
      {
        claim: "Status over gRPC: a bare server's calls for each of ours",
        measured: of("bare", "unary", "rate") / of("ours", "unary", "rate"),
        bound: 1.25,
        unit: ""
      },
      {
        claim: "an ended job's output over gRPC: a bare stream's bytes for each of ours",
        measured: of("bare", "stream", "rate") / of("ours", "stream", "rate"),
        bound: 1.25,
        unit: ""
      },
      {
        claim: "gRPC followers whose bytes were not identical",
        measured: few.wrong + crowd.wrong,
        bound: 0,
        unit: ""
      },
      {
        claim: `job slowed by ${FOLLOWERS} gRPC followers`,
        measured: 100 * (crowd.seconds / alone.seconds - 1),
        bound: 10,
        unit: "%"
      },
      {
        claim: "write in the sandbox to gRPC follower, p99",
        measured: percentile(few.lags, 0.99),
        bound: 20,
        unit: "ms"
      }
    ]
  })
  for (const client of [...ours.clients, ...bare.clients]) client.close()
  const gone = once(worker, "exit")
  worker.disconnect()
  await gone
  rmSync(state, { recursive: true, force: true })
  // grpc-js keeps timers of channels that are closed.
  process.exit(held ? 0 : 1)
}

await main()
