import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Queue, Stream } from "effect"
import { createHash } from "node:crypto"
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { Agent } from "node:https"
import { connect, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { connect as connectTls } from "node:tls"
import { clientTls, type TlsMaterial } from "../../src/layers/api/TlsMaterial.ts"
import * as Tokens from "../../src/layers/api/Tokens.ts"
import { certificates } from "../support/Certs.ts"
import { Hand } from "./FakeApi.ts"
import { call, json, open, server, tlsOf } from "./Https.ts"
import * as Memory from "./Memory.ts"

const body = (value: unknown) => ({ method: "POST", body: JSON.stringify(value) })
const descriptors = () => readdirSync("/proc/self/fd").length

/** Looks again and again; the machine may be busy. */
const until = Effect.fnUntraced(function*(what: string, holds: () => boolean) {
  for (let look = 0; look < 400; look++) {
    if (holds()) return
    yield* Effect.sleep("50 millis")
  }
  assert.fail(`${what}: not within 20 s`)
})

const tokens = Layer.unwrap(Effect.gen(function*() {
  const folder = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "stoker-http-"))),
    (path) => Effect.sync(() => rmSync(path, { recursive: true }))
  )
  const file = join(folder, "tokens.json")
  const sha256 = createHash("sha256").update("carols-secret").digest("hex")
  writeFileSync(file, JSON.stringify({ tokens: [{ name: "carol", sha256 }] }), { mode: 0o600 })
  return Tokens.layerFile(file)
}))

describe("the HTTP API over TLS", () => {
  it.live("who asks is who the certificate says, and nobody else gets to speak", () =>
    Effect.gen(function*() {
      const certs = yield* Effect.promise(certificates)
      const port = yield* server()
      const as = (material: TlsMaterial | undefined) => tlsOf(material, certs.authority.cert)
      const made = yield* call(port, "/v1/jobs", {
        ...body({ function: "fib", id: "one" }),
        tls: as(certs.alice),
        headers: { "x-owner": "bob", "x-forwarded-user": "admin", "stoker-owner": "bob" }
      })
      assert.strictEqual(made.status, 201)
      assert.deepInclude(json(made), { id: "one", owner: "alice" })
      assert.strictEqual((yield* call(port, "/v1/jobs/one", { tls: as(certs.alice) })).status, 200)
      const foreign = yield* call(port, "/v1/jobs/one", { tls: as(certs.bob) })
      const unknown = yield* call(port, "/v1/jobs/two", { tls: as(certs.bob) })
      assert.strictEqual(foreign.status, 404)
      assert.strictEqual(foreign.body.toString().replace("one", "two"), unknown.body.toString())
      assert.strictEqual((yield* call(port, "/v1/jobs/one", { tls: as(certs.admin) })).status, 200)
      const asking = (tls: ReturnType<typeof as>) =>
        Effect.match(call(port, "/v1/jobs", { tls }), { onSuccess: () => "answered", onFailure: () => "refused" })
      assert.strictEqual(yield* asking(as(undefined)), "refused")
      assert.strictEqual(yield* asking(as(certs.expired)), "refused")
      assert.strictEqual(yield* asking(as(certs.rogue)), "refused")
      assert.strictEqual(yield* asking({ ...as(certs.alice), minVersion: "TLSv1.2", maxVersion: "TLSv1.2" }), "refused")
      const plain = yield* Effect.callback<string>((resume) => {
        const socket = connect(port, "127.0.0.1", () => socket.write("GET /v1/jobs HTTP/1.1\r\nhost: x\r\n\r\n"))
        const seen: Array<Buffer> = []
        socket.on("data", (chunk) => seen.push(chunk))
        socket.on("error", () => undefined)
        socket.on("close", () => resume(Effect.succeed(Buffer.concat(seen).toString("latin1"))))
      })
      assert.notInclude(plain, "200 OK")
      assert.strictEqual(yield* asking(as(certs.alice)), "answered")
    }).pipe(Effect.scoped, Effect.provide([Tokens.layerNone, Memory.layer()])))

  it.live("with tokens a certificate need not be shown; without either the answer is 401, and a bad one is none", () =>
    Effect.gen(function*() {
      const certs = yield* Effect.promise(certificates)
      const port = yield* server()
      const as = (material: TlsMaterial | undefined) => ({ tls: tlsOf(material, certs.authority.cert) })
      assert.strictEqual((yield* call(port, "/v1/jobs", as(undefined))).status, 401)
      assert.strictEqual((yield* call(port, "/v1/jobs", as(certs.rogue))).status, 401)
      assert.strictEqual((yield* call(port, "/v1/jobs", as(certs.expired))).status, 401)
      assert.strictEqual((yield* call(port, "/v1/jobs", as(certs.alice))).status, 200)
      const token = (secret: string) => ({ ...as(undefined), headers: { authorization: `Bearer ${secret}` } })
      assert.strictEqual((yield* call(port, "/v1/jobs", token("wrong"))).status, 401)
      const made = yield* call(port, "/v1/jobs", { ...body({ function: "fib" }), ...token("carols-secret") })
      assert.deepInclude(json(made), { owner: "carol" })
      // Who shows a certificate is who it says.
      const both = { ...body({ function: "fib" }), ...token("carols-secret"), ...as(certs.alice) }
      assert.deepInclude(json(yield* call(port, "/v1/jobs", both)), { owner: "alice" })
    }).pipe(Effect.scoped, Effect.provide([tokens, Memory.layer()])))

  it.live("a certificate that ends is nobody's any more, on a connection that is open already", () =>
    Effect.gen(function*() {
      const certs = yield* Effect.promise(certificates)
      const port = yield* server()
      // Certificates know whole seconds.
      const toMs = Math.ceil(Date.now() / 1000) * 1000 + 4000
      const brief = yield* Effect.promise(() => certs.sign({ CN: "alice" }, "client", { fromMs: toMs - 600_000, toMs }))
      const agent = new Agent({ keepAlive: true, maxSockets: 1, ...clientTls(brief) })
      const connections = new Set<unknown>()
      const ask = Effect.gen(function*() {
        const answer = yield* open(port, "/v1/jobs", { agent })
        connections.add(answer.socket)
        answer.resume()
        return yield* Effect.callback<number | undefined>((resume) => {
          answer.once("end", () => resume(Effect.succeed(answer.statusCode)))
        })
      })
      assert.strictEqual(yield* ask, 200)
      yield* Effect.sleep(toMs - Date.now() + 500)
      assert.strictEqual(yield* ask, 401)
      assert.strictEqual(connections.size, 1)
      agent.destroy()
    }).pipe(Effect.scoped, Effect.provide([Tokens.layerNone, Memory.layer()])))

  it.live("a new certificate is used from then on, and streams that are open stay", () =>
    Effect.gen(function*() {
      const certs = yield* Effect.promise(certificates)
      const renewals = yield* Queue.unbounded<TlsMaterial>()
      const changes = Stream.concat(Stream.make(certs.server), Stream.fromQueue(renewals))
      const port = yield* server({ tls: { material: Effect.succeed(certs.server), changes } })
      const tls = clientTls(certs.alice)
      const hand = yield* Hand
      const shown = Effect.callback<string>((resume) => {
        const socket = connectTls({ ...tls, host: "127.0.0.1", port }, () => {
          const { fingerprint256 } = socket.getPeerCertificate()
          socket.destroy()
          resume(Effect.succeed(fingerprint256))
        })
      })
      yield* call(port, "/v1/jobs", { ...body({ function: "fib", id: "one" }), tls })
      const stream = yield* open(port, "/v1/jobs/one/events", { tls })
      const seen: Array<Buffer> = []
      stream.on("data", (chunk: Buffer) => seen.push(chunk))
      const before = yield* shown
      yield* Queue.offer(renewals, certs.nextServer)
      let after = before
      for (let look = 0; look < 200 && after === before; look++) after = yield* shown
      assert.notStrictEqual(after, before)
      // One that cannot be used changes nothing.
      yield* Queue.offer(renewals, { ...certs.server, key: "nonsense" })
      yield* hand.write("one", "stdout", Buffer.from("still here"))
      yield* until("the stream goes on", () => Buffer.concat(seen).includes("still here"))
      assert.strictEqual(yield* shown, after)
      stream.destroy()
    }).pipe(Effect.scoped, Effect.provide([Tokens.layerNone, Memory.layer()])))

  it.live("a stream whose reader went away, or does not read, costs nothing that grows", () =>
    Effect.gen(function*() {
      const certs = yield* Effect.promise(certificates)
      const port = yield* server()
      const tls = clientTls(certs.alice)
      const hand = yield* Hand
      yield* call(port, "/v1/jobs", { ...body({ function: "fib", id: "one" }), tls })
      const before = descriptors()
      const streams = yield* Effect.forEach(
        Array.from({ length: 40 }, (_, n) => n % 2 === 0 ? "events" : "events?stream=stderr"),
        (path) => open(port, `/v1/jobs/one/${path}`, { tls }),
        { concurrency: 8 }
      )
      yield* until("all of them follow", () => hand.following() === 40)
      // None of them reads: the writer goes on, and no reader comes further than what the sockets hold.
      const piece = Buffer.alloc(1 << 20, "x")
      for (let n = 0; n < 60; n++) yield* hand.write("one", "stdout", piece)
      yield* Effect.sleep("1 second")
      assert.isBelow(hand.furthest(), 20 << 20)
      const other = yield* call(port, "/v1/jobs/one", { tls })
      assert.strictEqual(other.status, 200)
      for (const stream of streams) stream.destroy()
      yield* until("nobody follows", () => hand.following() === 0)
      yield* until("descriptors are as before", () => descriptors() <= before)
    }).pipe(Effect.scoped, Effect.provide([Tokens.layerNone, Memory.layer()])), 60_000)

  it.live("the end of the server cuts off what is open, soon", () =>
    Effect.gen(function*() {
      const certs = yield* Effect.promise(certificates)
      const hand = yield* Hand
      const ended = yield* Effect.scoped(Effect.gen(function*() {
        const port = yield* server()
        const tls = clientTls(certs.alice)
        yield* call(port, "/v1/jobs", { ...body({ function: "fib", id: "one" }), tls })
        const stream = yield* open(port, "/v1/jobs/one/events", { tls })
        stream.resume()
        const halfway = connect(port, "127.0.0.1")
        halfway.on("error", () => undefined)
        return [
          new Promise<void>((resolve) => stream.once("close", () => resolve())),
          new Promise<void>((resolve) => halfway.once("close", () => resolve()))
        ]
      }))
      yield* Effect.promise(() => Promise.all(ended))
      assert.strictEqual(hand.following(), 0)
    }).pipe(Effect.scoped, Effect.provide([Tokens.layerNone, Memory.layer()])))

  it.live("neither who shows no certificate nor one caller alone can keep others out", () =>
    Effect.gen(function*() {
      const certs = yield* Effect.promise(certificates)
      const port = yield* server({ maximumConnections: 60 })
      const before = descriptors()
      const sockets: Array<Socket> = []
      const held = (socket: Socket) => {
        sockets.push(socket)
        socket.on("error", () => undefined)
        return socket
      }
      yield* Effect.addFinalizer(() => Effect.sync(() => sockets.forEach((socket) => socket.destroy())))
      const asked = (tls: ReturnType<typeof clientTls>) =>
        Effect.map(call(port, "/v1/jobs", { tls }), ({ status }) => status)
      for (let n = 0; n < 200; n++) held(connect(port, "127.0.0.1"))
      yield* until("they are there", () => sockets.filter(({ connecting }) => connecting).length === 0)
      assert.strictEqual(yield* asked(clientTls(certs.alice)), 200)
      const slow = "GET /v1/jobs HTTP/1.1\r\nhost: x\r\nx-a: "
      for (let n = 0; n < 100; n++) {
        const socket = connectTls({ ...clientTls(certs.alice), host: "127.0.0.1", port }, () => void socket.write(slow))
        yield* Effect.callback<void>((resume) => {
          held(socket).once("secureConnect", () => resume(Effect.void)).once("close", () => resume(Effect.void))
        })
      }
      assert.strictEqual(yield* asked(clientTls(certs.bob)), 200)
      for (const socket of sockets) socket.destroy()
      yield* until("descriptors are as before", () => descriptors() <= before)
      assert.strictEqual(yield* asked(clientTls(certs.alice)), 200)
    }).pipe(Effect.scoped, Effect.provide([Tokens.layerNone, Memory.layer()])), 60_000)

  it.live(
    "slow, many and malformed connections: the server stands, and descriptors return",
    () =>
      Effect.gen(function*() {
        const certs = yield* Effect.promise(certificates)
        const port = yield* server({ maximumConnections: 300 })
        const tls = clientTls(certs.alice)
        yield* call(port, "/v1/jobs", { ...body({ function: "fib", id: "one" }), tls })
        const before = descriptors()
        const sockets: Array<Socket> = []
        let closed = 0
        const track = <S extends Socket>(socket: S): S => {
          sockets.push(socket)
          socket.on("error", () => undefined)
          socket.on("close", () => closed++)
          return socket
        }
        // Headers that never end, and a body that never comes.
        const dribble = [
          "GET /v1/jobs HTTP/1.1\r\nhost: x\r\nx-a: ",
          "POST /v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n"
        ]
        const told: Array<string> = []
        for (const text of dribble) {
          const socket = track(connectTls({ ...tls, host: "127.0.0.1", port }, () => socket.write(text)))
          socket.on("data", (chunk: Buffer) => told.push(chunk.toString()))
        }
        const nonsense = [
          "\u0000\u0001\u0002 nothing of the kind\r\n\r\n",
          "GET / HTTP/9.9\r\n\r\n",
          "GET /v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
          `GET /v1/jobs HTTP/1.1\r\nhost: x\r\nx: ${"y".repeat(40_000)}\r\n\r\n`,
          "POST /v1/jobs HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"
        ]
        for (const text of nonsense) {
          const answer = yield* Effect.callback<string>((resume) => {
            const seen: Array<Buffer> = []
            const socket = track(connectTls({ ...tls, host: "127.0.0.1", port }, () => socket.write(text)))
            socket.on("data", (chunk: Buffer) => seen.push(chunk))
            socket.on("close", () => resume(Effect.succeed(Buffer.concat(seen).toString())))
          })
          assert.match(answer, /^HTTP\/1\.1 4\d\d/, JSON.stringify(text.slice(0, 40)))
          assert.include(answer, "application/problem+json")
        }
        const big = yield* call(port, "/v1/jobs", { method: "POST", body: "x".repeat(9 << 20), tls })
        assert.strictEqual(big.status, 413)
        assert.strictEqual(big.headers["content-type"], "application/problem+json")
        // Far more connections than there are places, which say nothing at all.
        for (let n = 0; n < 2000; n++) track(connect(port, "127.0.0.1"))
        yield* until("those without a place are dropped", () => closed >= 1500)
        for (const socket of sockets.slice(2)) socket.destroy()
        yield* until("there is room again", () => closed >= 2000)
        assert.strictEqual((yield* call(port, "/v1/jobs/one", { tls })).status, 200)
        yield* until("the slow ones are told, and cut off", () => sockets.every(({ destroyed }) => destroyed))
        assert.include(told.join(""), "HTTP/1.1 408")
        yield* until("descriptors are as before", () => descriptors() <= before)
      }).pipe(Effect.scoped, Effect.provide([Tokens.layerNone, Memory.layer()])),
    90_000
  )
})
