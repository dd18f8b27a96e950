/**
 * The floor of `grpc.ts`, a process of its own: what everybody would write first with the same libraries (grpc-js,
 * protobuf-es, TLS 1.3 with client certificates), with no rights, no jobs and nothing but the answer.
 */
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf"
import { Server, type ServerUnaryCall, type ServerWritableStream } from "@grpc/grpc-js"
import { Effect } from "effect"
import { once } from "node:events"
import { serverCredentials } from "../src/layers/api/GrpcTls.ts"
import { layerFixed, Tls } from "../src/layers/api/Tls.ts"
import type { TlsMaterial } from "../src/layers/api/TlsMaterial.ts"
import {
  FollowResponseSchema,
  OutputStream,
  StatusRequestSchema,
  StatusResponseSchema
} from "../src/layers/grpc/gen/stoker/v1/stoker_pb.js"
import { tellUsed } from "./grpcUsed.ts"

/** What it is given by its parent; not on the command line, which everybody can read. */
export interface BareStart {
  readonly material: TlsMaterial
  /** Some `StatusResponse`, which it answers all with. */
  readonly status: ReadonlyArray<number>
}

/** Bytes of one message of its stream. */
const PIECE = 65_536

const plain = (bytes: Buffer) => bytes
const definition = (name: string, responseStream: boolean) => ({
  path: `/stoker.v1.JobService/${name}`,
  requestStream: false,
  responseStream,
  requestSerialize: plain,
  requestDeserialize: plain,
  responseSerialize: plain,
  responseDeserialize: plain
})

const serve = ({ material, status }: BareStart) =>
  Effect.gen(function*() {
    const credentials = yield* serverCredentials(yield* Tls)
    const server = new Server()
    const peers = new Map<string, unknown>()
    const { job } = fromBinary(StatusResponseSchema, Uint8Array.from(status))
    if (job === undefined) return yield* Effect.die("there is no job in the answer")
    const data = new Uint8Array(PIECE)
    server.addService({ status: definition("Status", false), follow: definition("Follow", true) }, {
      // Decoding and encoding are part of what is compared, and whose call it is, looked up once for each peer.
      status: (call: ServerUnaryCall<Buffer, Buffer>, callback: (error: null, value: Buffer) => void) => {
        const peer = call.getPeer()
        if (!peers.has(peer)) peers.set(peer, call.getAuthContext().sslPeerCertificate?.subject.CN)
        const { id } = fromBinary(StatusRequestSchema, call.request)
        const answer = create(StatusResponseSchema, { job: { ...job, id } })
        callback(null, Buffer.from(toBinary(StatusResponseSchema, answer)))
      },
      follow: (call: ServerWritableStream<Buffer, Buffer>) => {
        let offset = 0n
        let isOver = false
        call.once("cancelled", () => isOver = true)
        const go = () => {
          for (;;) {
            if (isOver) return
            const value = { stream: OutputStream.STDOUT, content: { case: "bytes", value: { offset, data } } } as const
            const message: MessageInitShape<typeof FollowResponseSchema> = { event: { case: "output", value } }
            offset += BigInt(PIECE)
            const bytes = toBinary(FollowResponseSchema, create(FollowResponseSchema, message))
            if (!call.write(Buffer.from(bytes))) return void call.once("drain", go)
          }
        }
        go()
      }
    })
    const port = yield* Effect.callback<number, Error>((resume) =>
      server.bindAsync(
        "127.0.0.1:0",
        credentials,
        (error, port) => resume(error === null ? Effect.succeed(port) : Effect.fail(error))
      )
    )
    tellUsed()
    process.send?.({ port })
    return yield* Effect.never
  }).pipe(Effect.scoped, Effect.provide(layerFixed(material)))

process.once("disconnect", () => process.exit())
const [start] = await once(process, "message")
await Effect.runPromise(serve(start as BareStart))
