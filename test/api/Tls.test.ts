/** Certificates from files that change while servers run, as real TLS connections see them. */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Fiber, Layer, Logger, References, type Scope, Stream } from "effect"
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { createServer as createHttps, request } from "node:https"
import type { AddressInfo } from "node:net"
import { join } from "node:path"
import * as tls from "node:tls"
import { checkMaterial, follow, layerFiles, type Side, Tls } from "../../src/layers/api/Tls.ts"
import { clientTls, secureContext, serverTls, type TlsMaterial } from "../../src/layers/api/TlsMaterial.ts"
import { certificates, type MaterialFiles, writeMaterial } from "../support/Certs.ts"
import { Tree } from "../support/Tree.ts"
import { until } from "../worker/until.ts"

const all = await certificates()

const tree = Effect.acquireRelease(Effect.sync(() => Tree.of({})), (tree) => Effect.sync(() => tree[Symbol.dispose]()))

const listening = () => {
  const lines: Array<string> = []
  const logger = Logger.make(({ logLevel, message }) => void lines.push(`${logLevel} ${String(message)}`))
  return {
    lines,
    layer: Layer.merge(Logger.layer([logger]), Layer.succeed(References.MinimumLogLevel, "All"))
  }
}

const started = (files: MaterialFiles, side: Side = "server", poll: "1 hour" | "200 millis" = "1 hour") =>
  Effect.map(Layer.build(layerFiles(files, side, { poll })), (context) => Context.get(context, Tls))

/** What a client meets: what the server said, or the error's code; `closed` where it was hung up on. */
const meet = (port: number, options: tls.ConnectionOptions): Promise<string> =>
  new Promise((resolve) => {
    let said = ""
    const socket = tls.connect({ port, host: "127.0.0.1", servername: "localhost", ...options })
    socket.on("data", (chunk: Buffer) => said += chunk.toString())
    socket.on("error", (error) => resolve("code" in error ? String(error.code) : error.message))
    socket.on("close", () => resolve(said === "" ? "closed" : said))
  })

/** A server that tells a caller the name it sees, and the serial number of its own certificate. */
const greeting = (material: TlsMaterial): Effect.Effect<tls.Server, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<tls.Server>((resume) => {
      const server = tls.createServer(serverTls(material), (socket) => {
        socket.on("error", () => undefined)
        socket.end(`hello ${socket.getPeerCertificate().subject.CN} ${socket.getProtocol()}`)
      })
      server.on("tlsClientError", () => undefined)
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.sync(() => server.close())
  )

const portOf = (server: { address(): AddressInfo | string | null }) => (server.address() as AddressInfo).port

describe("the handshake", () => {
  it.live("lets in whom the authority signed for that, by TLS 1.3, and nobody else", () =>
    Effect.gen(function*() {
      const port = portOf(yield* greeting(all.server))
      const met = (options: tls.ConnectionOptions) => Effect.promise(() => meet(port, options))
      assert.strictEqual(yield* met(clientTls(all.alice)), "hello alice TLSv1.3")
      const later = { fromMs: Date.now() + 3_600_000, toMs: Date.now() + 7_200_000 }
      const early = yield* Effect.promise(() => all.sign({ CN: "alice" }, "client", later))
      const refused = {
        none: yield* met({ ca: all.authority.cert }),
        expired: yield* met(clientTls(all.expired)),
        early: yield* met(clientTls(early)),
        rogue: yield* met(clientTls(all.rogue)),
        "a server's": yield* met(clientTls(all.server)),
        old: yield* met({ ...clientTls(all.alice), minVersion: "TLSv1.2", maxVersion: "TLSv1.2" })
      }
      for (const [who, answer] of Object.entries(refused)) assert.notInclude(answer, "hello", who)
      assert.strictEqual(refused.old, "ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION")
      assert.strictEqual(refused.none, "ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED")
      assert.strictEqual(yield* met(clientTls(all.bob)), "hello bob TLSv1.3")
    }))

  it.live("shows a client that the server is another's", () =>
    Effect.gen(function*() {
      const port = portOf(yield* greeting(all.server))
      const answer = yield* Effect.promise(() => meet(port, { ...clientTls(all.alice), ca: all.rogueAuthority.cert }))
      assert.match(answer, /SELF_SIGNED|SIGNATURE|VERIFY/)
      const named = yield* Effect.promise(() => meet(port, { ...clientTls(all.alice), servername: "elsewhere" }))
      assert.strictEqual(named, "ERR_TLS_CERT_ALTNAME_INVALID")
    }))

  it.live("is a whole one each time: no session goes on without the certificate", () =>
    Effect.gen(function*() {
      const port = portOf(yield* greeting(all.server))
      const connected = (session: Buffer | undefined) =>
        Effect.callback<{ readonly reused: boolean; readonly session: Buffer | undefined }>((resume) => {
          let given: Buffer | undefined
          let reused = false
          const options = { port, host: "127.0.0.1", servername: "localhost", ...clientTls(all.alice) }
          const socket = tls.connect({ ...options, ...(session === undefined ? {} : { session }) })
          socket.on("secureConnect", () => reused = socket.isSessionReused())
          socket.on("session", (each: Buffer) => given = each)
          socket.on("data", () => undefined)
          socket.on("close", () => resume(Effect.succeed({ reused, session: given })))
        })
      const { session } = yield* connected(undefined)
      assert.isFalse((yield* connected(session)).reused)
    }))
})

const wrong: ReadonlyArray<
  readonly [name: string, material: () => TlsMaterial, file: string, said: RegExp, side?: Side]
> = [
  ["garbage for a certificate", () => ({ ...all.server, cert: "hello" }), "cert", /no certificate.*BEGIN CERTIFICATE/],
  [
    "a damaged certificate",
    () => ({ ...all.server, cert: all.server.cert.replace(/\n.{20}/, "\nAAAAAAAAAAAAAAAAAAAA") }),
    "cert",
    /no certificate/
  ],
  ["an empty key", () => ({ ...all.server, key: "" }), "key", /no private key/],
  ["another's key", () => ({ ...all.server, key: all.alice.key }), "key", /not the key of the certificate in.*cert/],
  ["an ended certificate", () => all.expired, "cert", /ended at 20.*renew/, "client"],
  ["a client's for a server", () => all.alice, "cert", /not one for a server.*issue server/],
  ["a server's for a client", () => all.server, "cert", /not one for a client.*issue client/, "client"],
  ["a leaf for an authority", () => ({ ...all.server, ca: all.alice.cert }), "ca", /no authority's/],
  ["no authority", () => ({ ...all.server, ca: "\n" }), "ca", /no certificate/]
]

describe("a material", () => {
  const files = { ca: "/x/ca", cert: "/x/cert", key: "/x/key" }
  for (const [name, material, file, said, side = "server"] of wrong) {
    it.live(`is refused, with the file named: ${name}`, () =>
      Effect.gen(function*() {
        const refused = yield* Effect.flip(checkMaterial(material(), files, side))
        assert.match(refused.message, said)
        assert.strictEqual(refused.file, `/x/${file}`)
        assert.isNotEmpty(refused.remedy)
        assert.notInclude(refused.message, "PRIVATE KEY")
      }))
  }

  it.live("may have a chain and several authorities", () =>
    Effect.gen(function*() {
      const { authority, rogueAuthority, server } = all
      const material = {
        ...server,
        ca: `# old and new\n${rogueAuthority.cert}${authority.cert}`,
        cert: server.cert + authority.cert
      }
      assert.deepStrictEqual(yield* checkMaterial(material, files, "server"), material)
    }))

  it.live("that is not there at the start is an error with the file's name", () =>
    Effect.gen(function*() {
      const { path } = yield* tree
      const refused = yield* Effect.flip(started(writeMaterial(path, "server", { ...all.server, cert: "x" })))
      assert.strictEqual(refused.file, join(path, "server.crt"))
      rmSync(join(path, "server.key"))
      assert.match((yield* Effect.flip(started(writeMaterial(join(path, "b"), "a", all.alice)))).message, /a\.crt/)
      const files = { ca: join(path, "ca.crt"), cert: join(path, "server.crt"), key: join(path, "server.key") }
      assert.match((yield* Effect.flip(started(files))).message, /server\.key.*ENOENT/)
    }))
})

describe("files that change", () => {
  const certOf = ({ material }: Tls["Service"]) => Effect.map(material, ({ cert }) => cert)
  const becomes = (service: Tls["Service"], cert: string) =>
    Effect.promise(() => until("the new material", async () => (await Effect.runPromise(certOf(service))) === cert))

  const replace = (file: string, text: string) => {
    writeFileSync(`${file}.new`, text)
    renameSync(`${file}.new`, file)
  }

  it.live("are taken over when they are replaced one after the other, and told to who listens", () =>
    Effect.gen(function*() {
      const { path } = yield* tree
      const files = writeMaterial(path, "server", all.server)
      const service = yield* started(files)
      const { changes } = service
      const seen = yield* changes.pipe(Stream.take(2), Stream.runCollect, Effect.forkChild({ startImmediately: true }))
      replace(files.key, all.nextServer.key)
      replace(files.cert, all.nextServer.cert)
      assert.deepStrictEqual((yield* Fiber.join(seen)).map(({ cert }) => cert), [all.server.cert, all.nextServer.cert])
    }))

  it.live("are taken over when they are written in place", () =>
    Effect.gen(function*() {
      const { path } = yield* tree
      const service = yield* started(writeMaterial(path, "server", all.server))
      writeMaterial(path, "server", all.nextServer)
      yield* becomes(service, all.nextServer.cert)
    }))

  it.live("are taken over when a link beside them is turned, as Kubernetes does", () =>
    Effect.gen(function*() {
      const { path } = yield* tree
      const secret = join(path, "secret")
      writeMaterial(join(secret, "..1"), "tls", all.server)
      writeMaterial(join(secret, "..2"), "tls", all.nextServer)
      symlinkSync("..1", join(secret, "..data"))
      for (const name of ["ca.crt", "tls.crt", "tls.key"]) symlinkSync(join("..data", name), join(secret, name))
      const files = { ca: join(secret, "ca.crt"), cert: join(secret, "tls.crt"), key: join(secret, "tls.key") }
      const service = yield* started(files)
      symlinkSync("..2", join(secret, "..new"))
      renameSync(join(secret, "..new"), join(secret, "..data"))
      yield* becomes(service, all.nextServer.cert)
    }))

  it.live("are found by looking now and then where no watch tells: a link further up", () =>
    Effect.gen(function*() {
      const { path } = yield* tree
      writeMaterial(join(path, "one"), "tls", all.server)
      writeMaterial(join(path, "two"), "tls", all.nextServer)
      mkdirSync(join(path, "links"))
      symlinkSync("../one", join(path, "links", "now"))
      const at = (name: string) => join(path, "links", "now", name)
      const service = yield* started(
        { ca: at("ca.crt"), cert: at("tls.crt"), key: at("tls.key") },
        "server",
        "200 millis"
      )
      symlinkSync("../two", join(path, "links", "next"))
      renameSync(join(path, "links", "next"), join(path, "links", "now"))
      yield* becomes(service, all.nextServer.cert)
    }))

  it.live("are refused while they do not fit together, said once, and the former stay until they do", () => {
    const { layer, lines } = listening()
    return Effect.gen(function*() {
      const { path } = yield* tree
      const files = writeMaterial(path, "server", all.server)
      const service = yield* started(files, "server", "200 millis")
      const errors = () => lines.filter((line) => line.startsWith("Error"))
      replace(files.key, all.nextServer.key)
      yield* Effect.promise(() => until("a first error", () => errors().length > 0))
      // Looked at several times since.
      yield* Effect.sleep("1 second")
      assert.strictEqual(errors().length, 1)
      assert.match(errors()[0] ?? "", /former stay.*server\.key.*not the key/)
      assert.strictEqual(yield* certOf(service), all.server.cert)
      rmSync(files.cert)
      yield* Effect.promise(() => until("a second error", () => errors().length > 1))
      assert.match(errors()[1] ?? "", /server\.crt.*ENOENT/)
      replace(files.cert, all.nextServer.cert)
      yield* becomes(service, all.nextServer.cert)
    }).pipe(Effect.scoped, Effect.provide(layer))
  })

  it.live("reach an HTTPS server, whose open connections stay", () =>
    Effect.gen(function*() {
      const { path } = yield* tree
      const files = writeMaterial(path, "server", all.server)
      const tls = yield* started(files)
      const server = createHttps(serverTls(yield* tls.material), (request, response) => {
        if (request.url === "/follow") return void response.write("begun")
        response.end(`hello ${request.socket.remotePort}`)
      })
      yield* Effect.acquireRelease(
        Effect.callback<void>((resume) => void server.listen(0, "127.0.0.1", () => resume(Effect.void))),
        () => Effect.sync(() => void (server.close(), server.closeAllConnections()))
      )
      yield* follow(tls, (material) => server.setSecureContext(secureContext(material)))
      const asked = (path: string, client: TlsMaterial) =>
        request({
          host: "127.0.0.1",
          servername: "localhost",
          port: portOf(server),
          path,
          agent: false,
          ...clientTls(client)
        })
          .end()
      let said = ""
      let ended = false
      const open = asked("/follow", all.alice)
      open.on("error", () => undefined)
      open.on("response", (response) => {
        response.on("data", (chunk: Buffer) => said += chunk.toString())
        response.on("close", () => ended = true)
      })
      yield* Effect.promise(() => until("an answer that goes on", () => said === "begun"))
      // The authority changes as well: from now on others are let in, and those who were are not.
      writeMaterial(path, "server", { ...all.nextServer, ca: all.rogueAuthority.cert })
      const answer = (client: TlsMaterial) =>
        new Promise<string>((resolve) => {
          const sent = asked("/", client)
          sent.on("error", (error) => resolve(error.message))
          sent.on("response", (response) => resolve(String(response.statusCode)))
        })
      yield* Effect.promise(() => until("the new authority", async () => (await answer(all.rogue)) === "200"))
      assert.notStrictEqual(yield* Effect.promise(() => answer(all.alice)), "200")
      assert.isFalse(ended)
      open.destroy()
    }))

  it.live("are watched as long as the scope lives", () =>
    Effect.gen(function*() {
      const { path } = yield* tree
      const files = writeMaterial(path, "server", all.server)
      const watches = () =>
        readdirSync("/proc/self/fdinfo").flatMap((fd) => {
          try {
            return readFileSync(`/proc/self/fdinfo/${fd}`, "utf8").match(/^inotify wd:/gm) ?? []
          } catch {
            return []
          }
        }).length
      const before = watches()
      const within = yield* Effect.scoped(Effect.andThen(started(files), Effect.sync(watches)))
      assert.deepStrictEqual([within - before, watches() - before], [1, 0])
    }))
})
