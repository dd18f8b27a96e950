import { afterAll, assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Schedule } from "effect"
import { execFileSync, spawn } from "node:child_process"
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { gzipSync } from "node:zlib"
import { Host } from "../../src/layers/host/Host.ts"
import * as Images from "../../src/layers/sandbox/oci/Images.ts"
import type { ImageLimits } from "../../src/layers/sandbox/oci/LayerScan.ts"
import { layerHost } from "../../src/wiring.ts"
import { freePort } from "../support/Ports.ts"
import * as Make from "./ImageMaker.ts"

const MiB = 1024 * 1024
const files = mkdtempSync(join(tmpdir(), "stoker-images-"))
let number = 0
const fresh = () => join(files, `${++number}`)

const path = process.env["PATH"] ?? "/usr/bin:/bin"

/** A worker's images, on a state directory, for as long as the effect runs. */
const withImages = <A, E>(
  state: string,
  use: (images: Images.Images) => Effect.Effect<A, E>,
  options: { readonly limits?: Partial<ImageLimits>; readonly env?: Readonly<Record<string, string>> } = {}
) =>
  Effect.gen(function*() {
    const host = yield* Host
    const images = yield* Images.make({
      host,
      within: (use) => use([]),
      env: { PATH: path, ...options.env },
      limits: { ...Images.standardLimits, ...options.limits }
    })
    return yield* use(images)
  }).pipe(Effect.provide(Layer.fresh(layerHost(state))), Effect.scoped)

const layout = (blobs: Make.Blobs) => {
  const path = fresh()
  Make.writeLayout(path, blobs)
  return `oci:${path}:latest`
}
const file = (bytes: Buffer) => {
  const path = fresh()
  writeFileSync(path, bytes)
  return path
}

const small = (content: string, more: Partial<Make.ImageOptions> = {}) =>
  Make.image({ layers: [Make.tar([{ name: "file", content, mode: 0o644 }])], ...more })

const kept = (state: string) => readdirSync(join(state, "images", "v1")).filter((name) => /^(sha256-|tmp\.)/.test(name))

describe("images", () => {
  afterAll(() => rmSync(files, { recursive: true, force: true }))

  it.live("too large, too many files or layers: refused before they are on the disk", () =>
    Effect.gen(function*() {
      const state = fresh()
      const zeros = Buffer.alloc(64 * MiB)
      const many = Array.from({ length: 400 }, (_, i) => ({ name: `f${i}`, content: "" }))
      const deep = [{ name: `${"d/".repeat(45)}x` }, { name: `${"e/".repeat(45)}x` }, { name: `${"f/".repeat(45)}x` }]
      const bad: ReadonlyArray<readonly [string, RegExp]> = [
        [
          layout(Make.image({ layers: [Make.tar([{ name: "zeros", content: zeros }])] })),
          /unpacked it is larger than 8388608 bytes/
        ],
        // It says that it is small, and is not: the headers are what counts.
        [layout(Make.image({ layers: [Make.tar([{ name: "lie", size: 2 ** 32 }])] })), /unpacked it is larger than/],
        [layout(Make.image({ layers: [Buffer.alloc(40 * MiB)] })), /larger than anything allowed in it/],
        [layout(Make.image({ layers: [Make.tar(many)] })), /it has more than 100 files/],
        [layout(Make.image({ layers: [Make.tar(deep)] })), /it has more than 100 files/],
        [
          layout(Make.image({ layers: Array.from({ length: 9 }, (_, i) => Make.tar([{ name: `${i}` }])) })),
          /it has 9 layers, and 8 are the most/
        ],
        [`oci-archive:${file(Buffer.alloc(9 * MiB))}`, /is larger than 8388608 bytes/],
        // Uncompressed by who takes it apart, which nobody of ours sees.
        [
          `oci-archive:${file(gzipSync(Make.tar([{ name: "big", content: zeros }])))}`,
          /there is no room for it|needs more bytes/
        ],
        [
          `docker-archive:${file(gzipSync(Make.tar([{ name: "big", content: zeros }])))}`,
          /there is no room for it|needs more bytes|corrupt/
        ]
      ]
      yield* withImages(state, (images) =>
        Effect.forEach(bad, ([image, pattern]) =>
          Effect.gen(function*() {
            const error = yield* Effect.flip(images.get(image))
            assert.match(error.reason, pattern)
            assert.strictEqual(error.step, "image")
          })), { limits: { bytes: 8 * MiB, inodes: 100, layers: 8 } })
      assert.deepStrictEqual(kept(state), [])
    }), 60_000)

  it.live("an archive of countless files is stopped while it is taken apart", () =>
    Effect.gen(function*() {
      const state = fresh()
      const many = Array.from({ length: 30_000 }, (_, i) => ({ name: `f${i}`, content: "" }))
      const error = yield* withImages(
        state,
        (images) => Effect.flip(images.get(`oci-archive:${file(gzipSync(Make.tar(many)))}`)),
        { limits: { bytes: 8 * MiB, inodes: 100 } }
      )
      assert.match(error.reason, /taken apart it needs more bytes or files than are allowed/)
      assert.deepStrictEqual(kept(state), [])
    }), 60_000)

  it.live(
    "many who ask wait for one pull, which goes on when they give up; two workers do each other no harm",
    () =>
      Effect.gen(function*() {
        const state = fresh()
        const image = layout(small("shared"))
        const both = Effect.gen(function*() {
          const pull = (images: Images.Images) =>
            Effect.gen(function*() {
              const hasty = yield* Effect.forkChild(images.get(image))
              yield* Effect.sleep("5 millis")
              yield* Fiber.interrupt(hasty)
              return yield* Effect.all(Array.from({ length: 5 }, () => images.get(image)), { concurrency: "unbounded" })
            })
          return yield* Effect.all([withImages(state, pull), withImages(state, pull)], { concurrency: 2 })
        })
        const got = (yield* both).flat()
        assert.strictEqual(new Set(got.map(({ tree }) => tree)).size, 1)
        assert.strictEqual(readFileSync(join(got[0]?.tree ?? "", "file"), "utf8"), "shared")
        assert.strictEqual(kept(state).length, 1)
      }),
    60_000
  )

  it.live(
    "what a dead worker left half done is cleared away, what is not used for two weeks too",
    () =>
      Effect.gen(function*() {
        const state = fresh()
        const [old, young] = [layout(small("old")), layout(small("young"))]
        yield* withImages(state, (images) => Effect.andThen(images.get(old), images.get(young)))
        const home = join(state, "images", "v1")
        mkdirSync(join(home, "tmp.wdead000000.1", "root"), { recursive: true })
        // The next worker sees that nobody uses them any more; the one after two weeks has passed for one of them.
        const stored = yield* withImages(state, (images) => images.get(old))
        assert.strictEqual(kept(state).filter((name) => name.startsWith("tmp.")).length, 0)
        yield* withImages(state, (images) => images.get(young))
        const mark = join(home, "used", `${stored.digest.replace(":", "-")}@nobody`)
        const past = Date.now() / 1000 - 15 * 24 * 3600
        utimesSync(mark, past, past)
        yield* withImages(state, (images) => images.get(young))
        assert.isFalse(existsSync(stored.tree))
        assert.strictEqual(kept(state).length, 1)
      }),
    60_000
  )

  it.live("a worker that ends in the middle of a pull leaves nothing that looks whole", () =>
    Effect.gen(function*() {
      const state = fresh()
      const slow = fresh()
      mkdirSync(slow)
      // umoci that never ends.
      writeFileSync(join(slow, "umoci"), "#!/bin/sh\nmkdir -p ready/root\nexec sleep 1000\n", { mode: 0o755 })
      chmodSync(files, 0o755)
      const image = layout(small("half"))
      const error = yield* withImages(
        state,
        (images) =>
          Effect.timeoutOrElse(images.get(image), { duration: "3 seconds", orElse: () => Effect.succeed("gave up") }),
        { env: { PATH: `${slow}:${path}` } }
      )
      assert.strictEqual(error, "gave up")
      assert.deepStrictEqual(kept(state), [])
      const stored = yield* withImages(state, (images) => images.get(image))
      assert.strictEqual(readFileSync(join(stored.tree, "file"), "utf8"), "half")
    }), 60_000)

  it.live("tools that are not there are named, with what installs them", () =>
    Effect.gen(function*() {
      const tools = fresh()
      mkdirSync(tools)
      for (const name of ["sh", "mount", "setpriv", "unshare", "prlimit", "sync"]) {
        const real = execFileSync("sh", ["-c", `command -v ${name}`]).toString().trim()
        writeFileSync(join(tools, name), `#!/bin/sh\nexec ${real} "$@"\n`, { mode: 0o755 })
      }
      const image = layout(small("x"))
      const none = yield* withImages(fresh(), (images) => Effect.flip(images.get(image)), { env: { PATH: tools } })
      assert.match(none.message, /skopeo.*apt-get install skopeo umoci/)
      const skopeo = execFileSync("sh", ["-c", "command -v skopeo"]).toString().trim()
      writeFileSync(join(tools, "skopeo"), `#!/bin/sh\nexec ${skopeo} "$@"\n`, { mode: 0o755 })
      const half = yield* withImages(fresh(), (images) => Effect.flip(images.get(image)), { env: { PATH: tools } })
      assert.match(half.message, /umoci.*apt-get install skopeo umoci/)
    }), 60_000)

  it.live(
    "a registry's images: tags are asked for once, digests never again; credentials come from the auth file",
    () =>
      Effect.gen(function*() {
        const registry = yield* startRegistry
        const reference = `${registry.host}/team/tool`
        const tag = `${reference}:1`
        const push = (made: Make.Blobs, name: string, ...more: ReadonlyArray<string>) =>
          execFileSync("skopeo", [
            "copy",
            "--quiet",
            "--all",
            "--dest-tls-verify=false",
            `--dest-authfile=${registry.auth}`,
            ...more,
            layout(made),
            `docker://${name}`
          ])
        const one = small("one", { index: ["amd64", "arm64"] })
        push(one, tag)
        push(small("docker"), `${reference}:v2s2`, "--format=v2s2")
        const [state, env] = [fresh(), { CONTAINERS_REGISTRIES_CONF: registry.conf, REGISTRY_AUTH_FILE: registry.auth }]
        const read = (image: string, more: Readonly<Record<string, string>> = env, where = state) =>
          withImages(where, (images) => images.get(image), { env: more }).pipe(
            Effect.map((stored) => ({ ...stored, text: readFileSync(join(stored.tree, "file"), "utf8") }))
          )
        const first = yield* read(tag)
        assert.strictEqual(first.text, "one")
        assert.strictEqual(first.digest, one.digest)
        assert.strictEqual((yield* read(`docker://${reference}:v2s2`)).text, "docker")
        // The tag goes on to another image: a worker that runs keeps its own, the next one has the new.
        yield* withImages(state, (images) =>
          Effect.gen(function*() {
            assert.strictEqual((yield* images.get(tag)).digest, one.digest)
            push(small("two"), tag)
            assert.strictEqual((yield* images.get(tag)).digest, one.digest)
          }), { env })
        assert.strictEqual((yield* read(tag)).text, "two")
        const pinned = `${reference}@${one.digest}`
        const others = fresh()
        assert.strictEqual((yield* read(pinned, env, others)).text, "one")
        const asked = registry.requests()
        assert.strictEqual((yield* read(pinned)).text, "one")
        assert.strictEqual((yield* read(pinned, {}, others)).text, "one")
        assert.strictEqual(registry.requests(), asked)

        const bad: ReadonlyArray<readonly [string, Readonly<Record<string, string>>, RegExp]> = [
          [`${reference}:9`, env, /there is no such image .*Look the name and tag up/],
          [`${reference}@sha256:${"0".repeat(64)}`, env, /there is no such image/],
          [
            `${reference}:v2s2`,
            { ...env, REGISTRY_AUTH_FILE: registry.wrong },
            /the registry does not let this worker have it.*REGISTRY_AUTH_FILE/
          ],
          [`${reference}:v2s2`, { REGISTRY_AUTH_FILE: registry.auth }, /the registry cannot be reached/]
        ]
        for (const [image, more, pattern] of bad) {
          const error = yield* Effect.flip(read(image, more, fresh()))
          assert.match(error.message, pattern)
        }
      }).pipe(Effect.scoped),
    120_000
  )
})

/** A real registry on loopback, over plain HTTP, with one user. */
const startRegistry = Effect.gen(function*() {
  const port = yield* Effect.promise(() => freePort())
  const folder = fresh()
  mkdirSync(folder)
  const host = `127.0.0.1:${port}`
  // user:word, bcrypt.
  writeFileSync(join(folder, "htpasswd"), "user:$2b$05$Tn6aNy38w61nNY/EbBwFJuomviCRSuaDLZC0kujKOe0K8g03YriiW\n")
  writeFileSync(
    join(folder, "config.yml"),
    [
      "version: 0.1",
      "log: { accesslog: { disabled: false }, level: error }",
      `storage: { filesystem: { rootdirectory: ${join(folder, "data")} } }`,
      `http: { addr: "${host}" }`,
      `auth: { htpasswd: { realm: test, path: ${join(folder, "htpasswd")} } }`
    ].join("\n")
  )
  const conf = join(folder, "registries.conf")
  writeFileSync(conf, `[[registry]]\nlocation = "${host}"\ninsecure = true\n`)
  const authFile = (name: string, word: string) => {
    const path = join(folder, name)
    writeFileSync(path, JSON.stringify({ auths: { [host]: { auth: Buffer.from(`user:${word}`).toString("base64") } } }))
    return path
  }
  let said = ""
  const child = yield* Effect.acquireRelease(
    Effect.sync(() =>
      spawn("docker-registry", ["serve", join(folder, "config.yml")], { stdio: ["ignore", "pipe", "pipe"] })
    ),
    (child) => Effect.sync(() => child.kill("SIGKILL"))
  )
  child.stdout.on("data", (bytes: Buffer) => said += bytes.toString())
  child.stderr.on("data", (bytes: Buffer) => said += bytes.toString())
  const up = Effect.tryPromise(() => fetch(`http://${host}/v2/`))
  yield* Effect.retry(up, { times: 200, schedule: Schedule.spaced("50 millis") })
  return {
    host,
    conf,
    auth: authFile("auth.json", "word"),
    wrong: authFile("wrong.json", "no"),
    requests: () => said.split("\n").filter((line) => /"(GET|HEAD) \/v2\/team/.test(line)).length
  }
})
