import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Redacted, Schema } from "effect"
import { createHmac } from "node:crypto"
import { createServer, type IncomingHttpHeaders, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import type { Telling } from "../../src/layers/emitter/Emitter.ts"
import * as Webhook from "../../src/layers/emitter/Webhook.ts"
import { isAllowed } from "../../src/layers/emitter/WebhookTargets.ts"
import * as JournalMemory from "../../src/layers/journal/JournalMemory.ts"
import type { Job } from "../../src/schemas/Job.ts"
import { JobView } from "../../src/schemas/JobView.ts"
import type { Message } from "../../src/schemas/Message.ts"
import { noUsage } from "../../src/schemas/Usage.ts"
import { makeJob } from "../actors/World.ts"

interface Seen {
  readonly url: string
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

/** A receiver that answers each request with what `statusOf` says; undefined: never; endless: 200, and its body never ends. */
const receiver = (statusOf: (seen: Seen, n: number) => number | "endless" | undefined) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const seen: Array<Seen> = []
      const server: Server = createServer((request, response) => {
        const chunks: Array<Buffer> = []
        request.on("data", (chunk: Buffer) => chunks.push(chunk))
        request.on("end", () => {
          const one = { url: String(request.url), headers: request.headers, body: Buffer.concat(chunks).toString() }
          seen.push(one)
          const status = statusOf(one, seen.length)
          if (status === undefined) return
          if (status === "endless") return void response.writeHead(200).write("x".repeat(100_000))
          response.writeHead(status, status === 302 ? { location: "/elsewhere" } : {}).end("ignored")
        })
      })
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve))
      return { server, seen, base: `http://127.0.0.1:${(server.address() as AddressInfo).port}` }
    }),
    ({ server }) => Effect.sync(() => void server.close().closeAllConnections())
  )

const job: Job = { ...makeJob("a"), args: { secret: "not told" } }
const telling = (webhook: string, id = "a"): Telling => {
  const key = { ...makeJob(id) }
  return {
    event: {
      _tag: "Ended",
      key: { intake: key.intake, owner: key.owner, id: key.id },
      attempt: 1,
      seq: 4,
      atMs: 5000,
      outcome: { _tag: "Exited", phase: "run", code: 0 },
      usage: noUsage,
      output: []
    },
    job: { ...job, id: key.id },
    reply: { dialect: "api", webhook }
  }
}

const make = (allow: ReadonlyArray<string>, more: Partial<Webhook.WebhookOptions> = {}) =>
  Webhook.make({ allow, secret: Redacted.make("s3cret"), backoff: "20 millis", ...more })

const messageOf = Effect.fnUntraced(
  function*(emitter: Effect.Success<ReturnType<typeof make>>, url: string, id?: string) {
    const [message] = yield* emitter.render(telling(url, id))
    return message ?? (yield* Effect.die("no message"))
  }
)

const sent = (emitter: Effect.Success<ReturnType<typeof make>>, message: Message) =>
  Effect.flatten(emitter.send(message))

const layers = Layer.mergeAll(Webhook.layerClient, JournalMemory.layer(JournalMemory.makeState()))

describe("webhooks", () => {
  it.live("an ended job is posted, signed, under an id that stays; and again until it is taken", () =>
    Effect.gen(function*() {
      const { base, seen } = yield* receiver((_, n) => n === 1 ? 503 : n === 2 ? 429 : 204)
      const emitter = yield* make([`${base}/hooks`])
      yield* sent(emitter, yield* messageOf(emitter, `${base}/hooks/1?x=y`))
      assert.lengthOf(seen, 3)
      assert.lengthOf(new Set(seen.map(({ headers }) => headers["webhook-id"])), 1)
      for (const { body, headers, url } of seen) {
        assert.strictEqual(url, "/hooks/1?x=y")
        assert.strictEqual(headers["content-type"], "application/json")
        const text = `${headers["webhook-id"]}.${headers["webhook-timestamp"]}.${body}`
        const expected = createHmac("sha256", "s3cret").update(text).digest("base64")
        assert.strictEqual(headers["webhook-signature"], `v1,${expected}`)
        const view = Schema.decodeUnknownSync(JobView)(JSON.parse(body))
        assert.strictEqual(view.state, "ended")
        assert.deepStrictEqual(view.outcome, { _tag: "Exited", phase: "run", code: 0 })
        assert.notInclude(body, "not told")
        assert.notProperty(headers, "traceparent")
      }
    }).pipe(Effect.scoped, Effect.provide(layers)))

  it.live("what will not change is given up at once: most of 4xx, and redirects, which are not followed", () =>
    Effect.gen(function*() {
      for (const status of [400, 404, 410, 302]) {
        const { base, seen } = yield* receiver(() => status)
        const emitter = yield* make([base])
        yield* sent(emitter, yield* messageOf(emitter, `${base}/x`))
        assert.lengthOf(seen, 1, String(status))
      }
    }).pipe(Effect.scoped, Effect.provide(layers)))

  it.live(
    "a receiver that is away is given up after a while, one that hangs holds up nobody else",
    () =>
      Effect.gen(function*() {
        const hanging = yield* receiver(() => undefined)
        const good = yield* receiver(() => 200)
        const emitter = yield* make([hanging.base, good.base, "http://127.0.0.1:1"], {
          giveUpAfter: "500 millis",
          timeout: "300 millis",
          maximumInHand: 20
        })
        const stuck = yield* Effect.forEach(
          Array.from({ length: 20 }, (_, n) => `stuck-${n}`),
          (id) =>
            Effect.flatMap(
              messageOf(emitter, `${hanging.base}/x`, id),
              (message) => Effect.forkChild(sent(emitter, message))
            )
        )
        yield* Effect.sleep("50 millis")
        // There is no room for more of them; others do not notice.
        yield* sent(emitter, yield* messageOf(emitter, `${hanging.base}/x`, "beyond"))
        yield* sent(emitter, yield* messageOf(emitter, `${good.base}/x`))
        assert.lengthOf(good.seen, 1)
        yield* sent(emitter, yield* messageOf(emitter, "http://127.0.0.1:1/x"))
        yield* Effect.forEach(stuck, Fiber.join)
        assert.isFalse(hanging.seen.some(({ headers }) => String(headers["webhook-id"]).includes("beyond")))
        // Room again.
        const before = hanging.seen.length
        yield* sent(emitter, yield* messageOf(emitter, `${hanging.base}/x`, "later"))
        assert.isAbove(hanging.seen.length, before)
      }).pipe(Effect.scoped, Effect.provide(layers)),
    30_000
  )

  it.live(
    "a receiver that goes on talking behind its status keeps no connection",
    () =>
      Effect.gen(function*() {
        const { base, seen, server } = yield* receiver(() => "endless")
        const emitter = yield* make([base], { timeout: "5 seconds" })
        // More than may be on their way at once.
        yield* Effect.forEach(
          Array.from({ length: 30 }, (_, n) => `talk-${n}`),
          (id) => Effect.flatMap(messageOf(emitter, `${base}/x`, id), (message) => sent(emitter, message)),
          { concurrency: "unbounded" }
        )
        assert.lengthOf(seen, 30)
        const open = () => new Promise<number>((resolve) => server.getConnections((_, count) => resolve(count)))
        let left = yield* Effect.promise(open)
        for (let look = 0; look < 100 && left > 0; look++) {
          yield* Effect.sleep("50 millis")
          left = yield* Effect.promise(open)
        }
        assert.strictEqual(left, 0)
      }).pipe(Effect.scoped, Effect.provide(layers)),
    30_000
  )

  it.live("jobs of other doors, and those without an address, owe nothing", () =>
    Effect.gen(function*() {
      const emitter = yield* make(["https://a.example/"])
      const ended = telling("https://a.example/x")
      for (const reply of [null, { dialect: "api" }, { dialect: "stoker", webhook: "https://a.example/x" }, "x"]) {
        assert.deepStrictEqual(yield* emitter.render({ ...ended, reply }), [])
      }
      const { outcome: _o, output: _p, usage: _u, ...common } = ended.event as Extract<
        Telling["event"],
        { _tag: "Ended" }
      >
      assert.deepStrictEqual(yield* emitter.render({ ...ended, event: { ...common, _tag: "Received" } }), [])
    }).pipe(Effect.scoped, Effect.provide(layers)))

  it("are posted only below what the operator wrote down", () => {
    const allowed = isAllowed([
      "https://a.example/hooks",
      "https://b.example:8443/x/",
      "not an address",
      "https://c.example/?q"
    ])
    for (
      const good of [
        "https://a.example/hooks",
        "https://a.example/hooks/1?x=1",
        "https://A.example:443/hooks/1",
        "https://b.example:8443/x/y"
      ]
    ) assert.isTrue(allowed(good), good)
    for (
      const bad of [
        "",
        "x",
        "http://a.example/hooks",
        "https://a.example/hooks-2",
        "https://a.example/hooks/../admin",
        "https://a.example/hooks/%2e%2e/admin",
        "https://a.example/hooks/..%2fadmin",
        "https://a.example/hooks\\..\\admin",
        "https://a.example/hooks/..;/admin",
        "https://a.example/hooks/..;a=b/admin",
        "https://a.example/hooks/.%09./admin",
        "https://a.example/hooks/%252e%252e/admin",
        "https://a.example/hooks/%25252e%25252e/admin",
        "https://a.example/hooks/a\r\nX: y",
        " https://a.example/hooks/a",
        "https://a.example.evil.example/hooks",
        "https://a.example@evil.example/hooks",
        "https://user:pw@a.example/hooks",
        "https://a.example:444/hooks",
        "https://b.example/x/y",
        "https://c.example/",
        "file:///hooks",
        "javascript:alert(1)"
      ]
    ) assert.isFalse(allowed(bad), bad)
  })
})
