/** gRPC over the same material: TLS 1.3 only, a certificate required, and new ones without dropping a stream. */
import { assert, describe, it } from "@effect/vitest"
import * as grpc from "@grpc/grpc-js"
import { Context, Effect, Layer, Result } from "effect"
import { connect } from "node:tls"
import { clientCredentials, serverCredentials } from "../../src/layers/api/GrpcTls.ts"
import { callerOf } from "../../src/layers/api/Identity.ts"
import { layerFiles, Tls } from "../../src/layers/api/Tls.ts"
import { clientTls, type TlsMaterial } from "../../src/layers/api/TlsMaterial.ts"
import { certificates, writeMaterial } from "../support/Certs.ts"
import { Tree } from "../support/Tree.ts"
import { until } from "../worker/until.ts"

const all = await certificates()

const asBytes = (text: string) => Buffer.from(text)
const asText = (bytes: Buffer) => bytes.toString()
const method = {
  requestSerialize: asBytes,
  requestDeserialize: asText,
  responseSerialize: asBytes,
  responseDeserialize: asText
}
const greeter = {
  who: { path: "/test.Greeter/Who", requestStream: false, responseStream: false, ...method },
  follow: { path: "/test.Greeter/Follow", requestStream: false, responseStream: true, ...method }
}

const serving = Effect.gen(function*() {
  const tree = yield* Effect.acquireRelease(
    Effect.sync(() => Tree.of({})),
    (tree) => Effect.sync(() => tree[Symbol.dispose]())
  )
  const files = writeMaterial(tree.path, "server", all.server)
  const tls = Context.get(yield* Layer.build(layerFiles(files, "server", { poll: "1 hour" })), Tls)
  const credentials = yield* serverCredentials(tls)
  const streams = new Set<grpc.ServerWritableStream<string, string>>()
  const server = new grpc.Server()
  server.addService(greeter, {
    who: (call: grpc.ServerUnaryCall<string, string>, answer: grpc.sendUnaryData<string>) => {
      const caller = callerOf(call.getAuthContext().sslPeerCertificate, "CN", call.getPeer())
      answer(null, Result.isSuccess(caller) ? caller.success.name : caller.failure.reason)
    },
    follow: (call: grpc.ServerWritableStream<string, string>) => {
      streams.add(call)
      call.write("begun")
    }
  })
  const port = yield* Effect.acquireRelease(
    Effect.callback<number, Error>((resume) =>
      server.bindAsync(
        "127.0.0.1:0",
        credentials,
        (error, port) => resume(error === null ? Effect.succeed(port) : Effect.fail(error))
      )
    ),
    () => Effect.sync(() => server.forceShutdown())
  )
  const client = (material: TlsMaterial) =>
    Effect.acquireRelease(
      Effect.sync(() => new grpc.Client(`localhost:${port}`, clientCredentials(material))),
      (client) => Effect.sync(() => client.close())
    )
  const who = (material: TlsMaterial) =>
    Effect.scoped(Effect.flatMap(client(material), (client) =>
      Effect.callback<string>((resume) => {
        const { path, requestSerialize, responseDeserialize } = greeter.who
        const options = { deadline: performance.timeOrigin + performance.now() + 20_000 }
        client.makeUnaryRequest(path, requestSerialize, responseDeserialize, "?", options, (error, answer) =>
          resume(Effect.succeed(error === null ? answer ?? "" : `code ${error.code}`)))
      })))
  return { tree, port, client, who, streams }
})

describe("gRPC", () => {
  it.live("knows callers by their certificates, and answers nobody else", () =>
    Effect.gen(function*() {
      const { port, who } = yield* serving
      assert.strictEqual(yield* who(all.alice), "alice")
      assert.strictEqual(yield* who(all.bob), "bob")
      for (const stranger of [all.expired, all.rogue, all.server]) {
        assert.strictEqual(yield* who(stranger), `code ${grpc.status.UNAVAILABLE}`)
      }
      const old = yield* Effect.callback<string>((resume) => {
        const socket = connect({
          ...clientTls(all.alice),
          host: "127.0.0.1",
          servername: "localhost",
          port,
          ALPNProtocols: ["h2"],
          minVersion: "TLSv1.2",
          maxVersion: "TLSv1.2"
        })
        socket.on("secureConnect", () => resume(Effect.succeed("connected")))
        socket.on("error", (error) => resume(Effect.succeed("code" in error ? String(error.code) : "error")))
      })
      assert.strictEqual(old, "ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION")
    }), 60_000)

  it.live("takes over new certificates while a stream goes on", () =>
    Effect.gen(function*() {
      const { client, streams, tree, who } = yield* serving
      const { path, requestSerialize, responseDeserialize } = greeter.follow
      let said = ""
      let over: unknown
      const following = (yield* client(all.alice))
        .makeServerStreamRequest(path, requestSerialize, responseDeserialize, "?")
      following.on("data", (text: string) => said += text)
      following.on("error", (error) => over = error)
      following.on("end", () => over = "end")
      yield* Effect.promise(() => until("the stream begins", () => said === "begun"))
      writeMaterial(tree.path, "server", { ...all.nextServer, ca: all.rogueAuthority.cert })
      const newcomer = { ...all.rogue, ca: all.authority.cert }
      yield* Effect.promise(() =>
        until("new callers", async () => (await Effect.runPromise(who(newcomer))) === "alice")
      )
      assert.strictEqual(yield* who(all.bob), `code ${grpc.status.UNAVAILABLE}`)
      for (const stream of streams) stream.write(", and goes on")
      yield* Effect.promise(() => until("more", () => said === "begun, and goes on"))
      assert.isUndefined(over)
      for (const stream of streams) stream.end()
      yield* Effect.promise(() => until("its end", () => over === "end"))
    }), 60_000)
})
