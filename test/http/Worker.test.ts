import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Redacted } from "effect"
import { rmSync } from "node:fs"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { join } from "node:path"
import { command } from "../../src/functions/Command.ts"
import { clientTls } from "../../src/layers/api/TlsMaterial.ts"
import { ClassName } from "../../src/schemas/Ids.ts"
import { standardClass, standardConfig } from "../../src/schemas/WorkerConfig.ts"
import { layerApi, layerWorker, webhookDoors } from "../../src/wiring.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import { certificates, writeMaterial } from "../support/Certs.ts"
import { freePort } from "../support/Ports.ts"
import { call, json } from "./Https.ts"

/** What was posted, in order. The first one is not taken. */
const receiver = Effect.acquireRelease(
  Effect.promise(async () => {
    const posted: Array<string> = []
    const server = createServer((request, response) => {
      const chunks: Array<Buffer> = []
      request.on("data", (chunk: Buffer) => chunks.push(chunk))
      request.on("end", () => {
        posted.push(Buffer.concat(chunks).toString())
        response.writeHead(posted.length === 1 ? 503 : 200).end()
      })
    })
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
    return { server, posted, hook: `http://127.0.0.1:${(server.address() as AddressInfo).port}/hooks` }
  }),
  ({ server }) => Effect.sync(() => void server.close().closeAllConnections())
)

describe("a worker with the HTTP API", () => {
  it.live(
    "runs what is posted, lets it be followed, read, stopped and deleted, and posts how it ended",
    () =>
      Effect.gen(function*() {
        const stateDirectory = yield* Effect.acquireRelease(
          Effect.sync(() => Jobs.stateDirectory()),
          (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
        )
        const { hook, posted } = yield* receiver
        const certs = yield* Effect.promise(certificates)
        const port = yield* Effect.promise(freePort)
        const webhooks = { allow: [hook], secret: Redacted.make("s3cret") }
        const worker = layerWorker({
          stateDirectory,
          functions: [command],
          config: {
            ...standardConfig,
            classes: [standardClass("plain", "process")],
            defaultClass: ClassName.make("plain")
          },
          doors: webhookDoors(webhooks)
        })
        const tls = writeMaterial(join(stateDirectory, "certs"), "server", certs.server)
        yield* Layer.build(
          layerApi({ http: `127.0.0.1:${port}`, tls, webhooks }).pipe(Layer.provideMerge(worker))
        )
        const ask = (path: string, more: Parameters<typeof call>[2] = {}) =>
          call(port, path, { tls: clientTls(certs.alice), ...more })
        const post = (body: unknown, query = "") =>
          ask(`/v1/jobs${query}`, { method: "POST", body: JSON.stringify(body) })

        const script = "echo one; echo two >&2; printf '\\377\\000' ; echo three > file.txt"
        const request = {
          function: "command",
          args: { argv: ["sh", "-c", script], artefacts: ["file.txt"] },
          id: "first",
          webhook: `${hook}/1`
        }
        const made = yield* post(request)
        assert.strictEqual(made.status, 201, made.body.toString())
        const events = (yield* ask("/v1/jobs/first/events")).body.toString()
        const tags = [...events.matchAll(/^event: (.*)$/gm)].map(([, tag]) => tag)
        assert.strictEqual(tags[0], "begun")
        assert.strictEqual(tags.at(-1), "end")
        assert.include(events, "\"text\":\"two\\n\"")
        assert.strictEqual((yield* post(request)).status, 200)
        assert.strictEqual((yield* post({ ...request, args: { argv: ["true"] } })).status, 409)
        assert.strictEqual((yield* post({ ...request, id: "x", webhook: "https://elsewhere.example/" })).status, 400)
        const output = yield* ask("/v1/jobs/first/output?stream=stdout")
        assert.deepStrictEqual(output.body, Buffer.from("one\n\u00ff\u0000", "latin1"))
        assert.strictEqual(output.headers["stoker-output"], "complete")
        const part = yield* ask("/v1/jobs/first/output?stream=stdout", { headers: { range: "bytes=-3" } })
        assert.strictEqual(part.headers["content-range"], "bytes 3-5/6")
        assert.strictEqual((yield* ask("/v1/jobs/first/artefacts/file.txt")).body.toString(), "three\n")
        assert.strictEqual((yield* call(port, "/v1/jobs/first", { tls: clientTls(certs.bob) })).status, 404)

        yield* post({ function: "command", args: { argv: ["sleep", "600"] }, id: "long" }, "?wait=20")
        assert.deepInclude(json(yield* ask("/v1/jobs/long")), { state: "running" })
        assert.strictEqual((yield* ask("/v1/jobs/long", { method: "DELETE" })).status, 409)
        const stopped = yield* ask("/v1/jobs/long/stop", { method: "POST", body: "{\"graceMs\":0}" })
        assert.deepInclude(json(stopped), { state: "ended" })
        assert.strictEqual((yield* ask("/v1/jobs/long", { method: "DELETE" })).status, 204)
        assert.strictEqual((yield* ask("/v1/jobs/long")).status, 404)

        for (let look = 0; look < 200 && posted.length < 2; look++) yield* Effect.sleep("100 millis")
        assert.lengthOf(posted, 2)
        assert.strictEqual(posted[0], posted[1])
        const { args: _, startedAtMs: _s, ...view } = json(yield* ask("/v1/jobs/first")) as Record<string, unknown>
        assert.deepStrictEqual(JSON.parse(posted[1] ?? ""), view)
      }).pipe(Effect.scoped),
    90_000
  )
})
