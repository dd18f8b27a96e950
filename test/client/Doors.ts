/** Both doors over the memory's control plane, with a client of each; and a way there that breaks. */
import { layerSecureRandom } from "@effect/platform-node/NodeCrypto"
import { Effect, Layer, type Scope } from "effect"
import { connect, createServer, type Socket } from "node:net"
import type { StokerClient } from "../../src/client/StokerClient.ts"
import * as StokerClientGrpc from "../../src/client/StokerClientGrpc.ts"
import * as StokerClientHttp from "../../src/client/StokerClientHttp.ts"
import { parseAddress, type Target } from "../../src/client/Target.ts"
import type { JobApi } from "../../src/layers/api/JobApi.ts"
import { layerFixed } from "../../src/layers/api/Tls.ts"
import { layerNone } from "../../src/layers/api/Tokens.ts"
import { make } from "../../src/layers/grpc/GrpcServer.ts"
import * as JobApiMemory from "../api/JobApiMemory.ts"
import * as Https from "../http/Https.ts"
import { certificates } from "../support/Certs.ts"

/** Where a door is. */
export const target = (protocol: "grpc" | "https", port: number, credentials: Target["credentials"]): Target => {
  const address = parseAddress(`${protocol}://localhost:${port}`)
  if (address === undefined) throw new Error("no address")
  return { address, credentials }
}

export const clientLayer = (to: Target) =>
  to.address.protocol === "grpc" ? StokerClientGrpc.layer(to) : StokerClientHttp.layer(to)

/** Opens a door; gives its port. */
export const door = (protocol: "grpc" | "https"): Effect.Effect<number, unknown, JobApi | Scope.Scope> =>
  Effect.gen(function*() {
    if (protocol === "https") return yield* Effect.provide(Https.server(), layerNone)
    const { server } = yield* Effect.promise(certificates)
    const served = yield* make({ listen: "127.0.0.1:0" }).pipe(
      Effect.provide(Layer.mergeAll(layerFixed(server), layerSecureRandom))
    )
    return served.port
  })

/** Runs a test with a door and alice as its client. `over` stands between the two. */
export const withClient = <A, E>(
  protocol: "grpc" | "https",
  use: (port: number) => Effect.Effect<A, E, StokerClient | JobApi | JobApiMemory.Memory | Scope.Scope>,
  over: (port: number) => Effect.Effect<number, never, Scope.Scope> = Effect.succeed
) =>
  Effect.gen(function*() {
    const { alice } = yield* Effect.promise(certificates)
    const port = yield* Effect.orDie(door(protocol))
    return yield* Effect.provide(use(port), clientLayer(target(protocol, yield* over(port), alice)))
  }).pipe(Effect.scoped, Effect.provide(JobApiMemory.layer))

/** A way to a port on which every connection is cut after some bytes from there; gives its own port. */
export const breaking = (bytes: () => number) => (port: number): Effect.Effect<number, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<{ readonly port: number; readonly close: Effect.Effect<void> }>((resume) => {
      const sockets = new Set<Socket>()
      const keep = (socket: Socket) => {
        sockets.add(socket)
        socket.on("error", () => socket.destroy())
        socket.on("close", () => sockets.delete(socket))
        return socket
      }
      const server = createServer((near) => {
        keep(near)
        const far = keep(connect(port, "127.0.0.1"))
        let left = bytes()
        near.pipe(far)
        far.on("data", (chunk: Buffer) => {
          near.write(chunk.subarray(0, Math.max(0, left)))
          left -= chunk.length
          if (left > 0) return
          near.destroy()
          far.destroy()
        })
        far.on("close", () => near.destroy())
        near.on("close", () => far.destroy())
      })
      const close = Effect.callback<void>((done) => {
        server.close(() => done(Effect.void))
        for (const socket of sockets) socket.destroy()
      })
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        resume(Effect.succeed({ port: typeof address === "object" && address !== null ? address.port : 0, close }))
      })
    }),
    ({ close }) => close
  ).pipe(Effect.map(({ port: own }) => own))
