/** `stoker certs`: what OpenSSL and real handshakes make of its certificates, and what it refuses. */
import { afterAll, assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Option, Result } from "effect"
import { TestClock } from "effect/testing"
import { createHash, createPrivateKey, X509Certificate } from "node:crypto"
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync
} from "node:fs"
import type { AddressInfo } from "node:net"
import { join } from "node:path"
import { connect, createServer } from "node:tls"
import { callerOf } from "../../src/layers/api/Identity.ts"
import { layerFiles, Tls } from "../../src/layers/api/Tls.ts"
import { clientTls, serverTls, type TlsMaterial } from "../../src/layers/api/TlsMaterial.ts"
import * as Tokens from "../../src/layers/api/Tokens.ts"
import * as Authority from "../../src/layers/certs/Authority.ts"
import { run } from "../support/Run.ts"
import { projectRoot, Tree } from "../support/Tree.ts"
import { until } from "../worker/until.ts"
import { Stoker } from "./Stoker.ts"

const stoker = new Stoker()
afterAll(() => stoker.dispose())

const folder = join(stoker.state, "certs")
const at = (name: string) => join(folder, name)
const certs = (...args: ReadonlyArray<string>) => stoker.run(["certs", ...args])
const read = (name: string) => readFileSync(at(name), "utf8")
const parsed = (name: string) => new X509Certificate(readFileSync(at(name)))
const material = (name: string): TlsMaterial => ({
  ca: read("ca.crt"),
  cert: read(`${name}.crt`),
  key: read(`${name}.key`)
})
const modeOf = (path: string) => (statSync(path).mode & 0o777).toString(8)
const days = (from: number, until: Date) => Math.round((until.getTime() - from) / 86_400_000)

const verify = async (purpose: "sslclient" | "sslserver", name: string, ca = at("ca.crt")) => {
  const { code, stderr } = await run("openssl", ["verify", "-x509_strict", "-purpose", purpose, "-CAfile", ca, name])
  return code === 0 ? "OK" : stderr
}

/** What both sides see of each other. */
const shakeHands = (server: TlsMaterial, client: TlsMaterial, servername: string): Promise<string> =>
  new Promise((resolve) => {
    const listening = createServer(serverTls(server), (socket) => {
      const named = (field: "CN" | "L") => {
        const caller = callerOf(socket.getPeerCertificate(), field)
        return Result.isSuccess(caller) ? caller.success.name : "-"
      }
      socket.on("error", () => undefined)
      socket.end(`${named("CN")} ${named("L")}`)
    })
    const end = (text: string) => listening.close(() => resolve(text))
    listening.on("tlsClientError", () => undefined)
    listening.listen(0, "127.0.0.1", () => {
      const { port } = listening.address() as AddressInfo
      let said = ""
      const socket = connect({ host: "127.0.0.1", port, servername, ...clientTls(client) })
      socket.on("data", (chunk: Buffer) => said += chunk.toString())
      socket.on("error", (error) => said = "code" in error ? String(error.code) : error.message)
      socket.on("close", () => end(said === "" ? "closed" : said))
    })
  })

describe("stoker certs", () => {
  it(
    "makes an authority, servers and clients that OpenSSL and TLS take for what they are, and for nothing else",
    async () => {
      const started = Date.now()
      const made = await certs("init")
      assert.strictEqual(made.code, 0, made.stderr)
      assert.strictEqual(made.stdout, `${at("ca.crt")}\n${at("ca.key")}\n`)
      assert.match(made.stderr, /stays in this folder/)
      assert.match(made.stderr, /stoker certs issue client NAME\n/)
      const hosts = ["--host", "worker.example.com", "--host", "10.0.0.1", "--host", "fd00::1"]
      assert.strictEqual((await certs("issue", "server", ...hosts)).code, 0)
      assert.strictEqual((await certs("issue", "client", "alice@example.com")).code, 0)
      assert.strictEqual((await certs("issue", "client", "bob", "--field", "L", "--days", "2")).code, 0)

      assert.deepStrictEqual(
        readdirSync(folder).toSorted(),
        ["alice@example.com", "bob", "ca", "server"].flatMap((name) => [`${name}.crt`, `${name}.key`])
      )
      assert.strictEqual(modeOf(folder), "700")
      for (const name of readdirSync(folder)) {
        assert.strictEqual(
          modeOf(at(name)),
          name.endsWith(".key") ? "600" : "644"
        )
      }

      assert.strictEqual(await verify("sslserver", at("server.crt")), "OK")
      for (const name of ["alice@example.com.crt", "bob.crt"]) {
        assert.strictEqual(await verify("sslclient", at(name)), "OK")
        assert.match(await verify("sslserver", at(name)), /unsuitable certificate purpose/)
      }
      assert.match(await verify("sslclient", at("server.crt")), /unsuitable certificate purpose/)

      const all = ["ca.crt", "server.crt", "alice@example.com.crt", "bob.crt"].map(parsed)
      const unique = (of: (each: X509Certificate) => string) => new Set(all.map(of)).size
      assert.strictEqual(unique((each) => each.serialNumber), 4)
      assert.strictEqual(unique((each) => each.publicKey.export({ type: "spki", format: "pem" }).toString()), 4)
      assert.deepStrictEqual(all.map(({ validToDate }) => days(started, validToDate)), [1826, 90, 30, 2])
      for (const { publicKey, serialNumber, validFromDate } of all) {
        assert.strictEqual(publicKey.asymmetricKeyDetails?.namedCurve, "prime256v1")
        assert.isAtLeast(serialNumber.length, 30)
        const before = started - validFromDate.getTime()
        assert.isTrue(before > 0 && before < 360_000)
      }
      const { stdout: text } = await run("openssl", ["x509", "-in", at("server.crt"), "-noout", "-text"])
      assert.match(text, /Basic Constraints: critical\s+CA:FALSE/)
      assert.match(text, /Key Usage: critical\s+Digital Signature\n/)
      assert.match(text, /DNS:worker\.example\.com, IP Address:10\.0\.0\.1, IP Address:FD00:0:0:0:0:0:0:1/)
      assert.match(text, /Subject Key Identifier[^]*Authority Key Identifier/)
      const { stdout: authority } = await run("openssl", ["x509", "-in", at("ca.crt"), "-noout", "-text"])
      assert.match(authority, /Basic Constraints: critical\s+CA:TRUE, pathlen:0/)
      assert.match(authority, /Key Usage: critical\s+Certificate Sign, CRL Sign/)

      const [server, alice, bob] = [material("server"), material("alice@example.com"), material("bob")]
      assert.strictEqual(await shakeHands(server, alice, "worker.example.com"), "alice@example.com -")
      assert.strictEqual(await shakeHands(server, bob, "worker.example.com"), "client bob")
      assert.strictEqual(await shakeHands(server, alice, "localhost"), "ERR_TLS_CERT_ALTNAME_INVALID")
      assert.notMatch(await shakeHands(server, server, "worker.example.com"), / /)
    },
    120_000
  )

  it("names the folder that was named in what to do next", async () => {
    const dir = join(stoker.folder, "named")
    const made = await stoker.run(["certs", "init", "--dir", dir])
    assert.include(
      made.stderr,
      `issue server --host NAME --dir ${dir}, and stoker certs issue client NAME --dir ${dir}\n`
    )
    const server = await stoker.run(["certs", "issue", "server", "--dir", dir])
    assert.include(server.stderr, `stoker certs renew server --dir ${dir}\n`)
  })

  it("shows what there is and until when", async () => {
    const { code, stdout } = await certs("show")
    assert.strictEqual(code, 0)
    assert.match(
      stdout,
      /^NAME +FOR +SUBJECT +HOSTS +UNTIL +STATE\nca +authority +CN=Stoker authority +- +20.*days left/
    )
    assert.match(stdout, /\nbob +client +L=bob +- +\S+Z +1 day left/)
    assert.match(stdout, /\nserver +server +CN=server +worker\.example\.com,10\.0\.0\.1,\S+ /)
    const listed: ReadonlyArray<Record<string, unknown>> = JSON.parse((await certs("show", "--json")).stdout)
    assert.deepStrictEqual(listed.map(({ kind, name, state }) => [name, kind, state]), [
      ["ca", "authority", "valid"],
      ["alice@example.com", "client", "valid"],
      ["bob", "client", "valid"],
      ["server", "server", "valid"]
    ])
  })

  it("renews with another key and the same words, and a running server takes it over", async () => {
    const before = material("server")
    chmodSync(at("server.key"), 0o640)
    await Effect.runPromise(Effect.scoped(Effect.gen(function*() {
      const files = { ca: at("ca.crt"), cert: at("server.crt"), key: at("server.key") }
      const { material } = Context.get(yield* Layer.build(layerFiles(files, "server")), Tls)
      const { code, stderr } = yield* Effect.promise(() => certs("renew", "server", "--days", "7"))
      assert.strictEqual(code, 0, stderr)
      yield* Effect.promise(() =>
        until("the renewed one", async () => (await Effect.runPromise(material)).cert !== before.cert)
      )
    })))
    const [old, renewed] = [new X509Certificate(before.cert), parsed("server.crt")]
    assert.deepStrictEqual(
      [renewed.subject, renewed.subjectAltName, renewed.keyUsage],
      [old.subject, old.subjectAltName, old.keyUsage]
    )
    assert.notStrictEqual(renewed.serialNumber, old.serialNumber)
    assert.isFalse(old.publicKey.equals(renewed.publicKey))
    assert.strictEqual(days(Date.now(), renewed.validToDate), 7)
    assert.strictEqual(modeOf(at("server.key")), "640")
    assert.strictEqual(await verify("sslserver", at("server.crt")), "OK")
    assert.strictEqual((await certs("renew", "bob", "--json")).code, 0)
    assert.strictEqual(await shakeHands(material("server"), material("bob"), "worker.example.com"), "client bob")
    assert.strictEqual(days(Date.now(), parsed("bob.crt").validToDate), 2)
    assert.isFalse(readdirSync(folder).some((name) => name.endsWith(".new")))
  }, 60_000)

  const wrong: ReadonlyArray<readonly [name: string, args: ReadonlyArray<string>, said: RegExp]> = [
    ["a second authority in one folder", ["init"], /there is an authority already[^]*--dir/],
    ["a client twice", ["issue", "client", "bob"], /one of that name already[^]*stoker certs renew bob/],
    ["a server twice", ["issue", "server"], /one of that name already[^]*renew server/],
    ["the authority's name", ["issue", "client", "ca"], /the authority's own/],
    ["a path for a name", ["issue", "client", "../bob"], /"\.\.\/bob" cannot be a name[^]*letters/],
    ["a name with a space", ["issue", "server", "--name", "a b"], /cannot be a name/],
    ["a host with a port", ["issue", "server", "--name", "b", "--host", "worker:443"], /no host[^]*without port/],
    ["no days", ["issue", "client", "carol", "--days", "0"], /--days[^]*1 to 7300/],
    ["renewing what is not there", ["renew", "carol"], /carol\.crt is missing[^]*issue client carol/],
    ["renewing the authority", ["renew", "ca"], /the authority's own/],
    [
      "a folder without authority",
      ["issue", "client", "a", "--dir", "nothing"],
      /no authority in[^]*stoker certs init/
    ],
    ["a folder that is not there", ["show", "--dir", "nothing"], /cannot be read[^]*stoker certs init/],
    ["a folder open to others", ["init", "--dir", "."], /open to others[^]*chmod 700/],
    ["a token for nobody", ["token", "a/b"], /cannot be a name/]
  ]
  for (const [name, args, said] of wrong) {
    it(`refuses ${name}, says why and what to do, and changes nothing`, async () => {
      chmodSync(stoker.folder, 0o755)
      const before = readdirSync(folder).map((file) => `${file} ${read(file)}`)
      const { code, stderr, stdout } = await certs(...args)
      assert.match(stderr, said)
      assert.notMatch(stderr, /^\s+at /m)
      assert.deepStrictEqual({ code, stdout }, { code: 1, stdout: "" })
      assert.deepStrictEqual(readdirSync(folder).map((file) => `${file} ${read(file)}`), before)
    })
  }

  it("makes tokens that the worker's file knows by their hash only", async () => {
    const { code, stderr, stdout } = await certs("token", "ci", "--days", "3")
    assert.strictEqual(code, 0)
    const token = stdout.trim()
    assert.match(token, /^stoker_[A-Za-z0-9_-]{43}$/)
    assert.notInclude(stderr, token)
    const entry = JSON.parse(stderr.slice(stderr.indexOf("{\"name\"")))
    assert.strictEqual(entry.sha256, createHash("sha256").update(token).digest("hex"))
    using tree = Tree.of({ "tokens.json": JSON.stringify({ tokens: [entry] }) })
    const answer = await Effect.runPromise(Effect.scoped(Effect.gen(function*() {
      const context = yield* Layer.build(Tokens.layerFile(join(tree.path, "tokens.json")))
      return yield* Context.get(context, Tokens.Tokens).callerOf(`Bearer ${token}`)
    })))
    assert.isTrue(Result.isSuccess(answer) && answer.success.name === "ci")
  })

  it("works in the bundle, where the library is another file", async () => {
    using tree = Tree.of({})
    const dir = join(tree.path, "certs")
    const bundled = (...args: ReadonlyArray<string>) =>
      run(join(projectRoot, "dist", "stoker"), ["certs", ...args, "--dir", dir])
    assert.deepInclude(await bundled("init"), { code: 0 })
    assert.deepInclude(await bundled("issue", "server"), { code: 0 })
    assert.deepInclude(await bundled("issue", "client", "alice"), { code: 0 })
    assert.deepInclude(await bundled("renew", "alice"), { code: 0 })
    assert.strictEqual(await verify("sslserver", join(dir, "server.crt"), join(dir, "ca.crt")), "OK")
    assert.strictEqual(await verify("sslclient", join(dir, "alice.crt"), join(dir, "ca.crt")), "OK")
  })
})

const DAY = 86_400_000

/** In the process, where time is ours. */
describe("an authority", () => {
  const tree = Effect.acquireRelease(
    Effect.sync(() => Tree.of({})),
    (tree) => Effect.sync(() => tree[Symbol.dispose]())
  )
  const client = (name: string, days = 30) =>
    ({ name, days, purpose: "client", subject: { CN: name }, hosts: [] }) as const
  const begun = Effect.gen(function*() {
    const dir = join((yield* tree).path, "certs")
    yield* TestClock.setTime(Date.now())
    yield* Authority.init(dir, { name: "Test", days: 10 })
    return dir
  })

  it.effect("shortens what would outlive it, and signs no more once it has ended", () =>
    Effect.gen(function*() {
      const dir = yield* begun
      const { shortened, untilMs } = yield* Authority.issue(dir, client("alice"))
      const authority = new X509Certificate(readFileSync(join(dir, "ca.crt")))
      assert.isTrue(shortened)
      const cut = (ms: number) => Math.floor(ms / 1000)
      assert.strictEqual(cut(untilMs), cut(authority.validToDate.getTime()))
      assert.isFalse((yield* Authority.issue(dir, client("bob", 2))).shortened)
      yield* TestClock.adjust(5 * DAY)
      const { certificates } = yield* Authority.show(dir)
      assert.deepStrictEqual(certificates.map(({ name, state }) => `${name} ${state}`), [
        "ca valid",
        "alice valid",
        "bob ended"
      ])
      yield* TestClock.adjust(6 * DAY)
      for (
        const act of [
          Authority.issue(dir, client("carol")),
          Authority.renew(dir, { name: "bob", days: Option.none() })
        ]
      ) {
        const refused = yield* Effect.flip(act)
        assert.match(refused.reason, /ended at 20/)
        assert.match(refused.remedy, /stoker certs init --dir NEW/)
      }
      assert.isFalse(existsSync(join(dir, "carol.key")))
    }))

  it.effect("is not taken from files that do not belong together", () =>
    Effect.gen(function*() {
      const dir = yield* begun
      yield* Authority.issue(dir, client("alice"))
      const key = join(dir, "ca.key")
      const right = readFileSync(key)
      const refusal = Effect.map(Effect.flip(Authority.issue(dir, client("bob"))), ({ reason }) => reason)
      copyFileSync(join(dir, "alice.key"), key)
      assert.match(yield* refusal, /ca\.key is not the key of/)
      writeFileSync(key, "garbage")
      assert.match(yield* refusal, /no private key/)
      writeFileSync(key, right)
      writeFileSync(join(dir, "ca.crt"), "garbage")
      assert.match(yield* refusal, /ca\.crt holds no certificate/)
      const { broken } = yield* Authority.show(dir)
      assert.deepStrictEqual(broken, [join(dir, "ca.crt")])
    }))

  it.effect("is made once, whoever else makes one at the same time", () =>
    Effect.gen(function*() {
      const dir = join((yield* tree).path, "certs")
      mkdirSync(dir, { mode: 0o700 })
      const made = yield* Effect.all(
        Array.from({ length: 4 }, () => Effect.option(Authority.init(dir, { name: "Test", days: 10 }))),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(made.filter(Option.isSome).length, 1)
      const certificate = new X509Certificate(readFileSync(join(dir, "ca.crt")))
      assert.isTrue(certificate.checkPrivateKey(createPrivateKey(readFileSync(join(dir, "ca.key")))))
      assert.deepStrictEqual(readdirSync(dir).toSorted(), ["ca.crt", "ca.key"])
    }))
})
