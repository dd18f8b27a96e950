import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Hand } from "./FakeApi.ts"
import * as Memory from "./Memory.ts"

const start = (body: unknown) => ({ method: "POST", body: JSON.stringify(body) })
const json = (response: Response) => Effect.promise(() => response.json() as Promise<Record<string, unknown>>)
const text = (response: Response) => Effect.promise(() => response.text())

describe("the HTTP API's handlers", () => {
  it.live("a job is started, known again, stopped, listed and deleted", () =>
    Effect.gen(function*() {
      const ask = yield* Memory.make()
      const made = yield* ask("/v1/jobs?wait=3", start({ function: "fib", args: { position: 3 }, id: "one" }))
      assert.strictEqual(made.status, 201)
      assert.strictEqual(made.headers.get("location"), "/v1/jobs/one")
      assert.strictEqual((yield* json(made))["owner"], "alice")
      const hand = yield* Hand
      assert.deepInclude(hand.asked.get("start"), { waitMs: 3000 })
      const again = yield* ask("/v1/jobs", start({ function: "fib", args: { position: 3 }, id: "one" }))
      assert.strictEqual(again.status, 200)
      const taken = yield* ask("/v1/jobs", start({ function: "fib", args: { position: 4 }, id: "one" }))
      assert.strictEqual(taken.status, 409)
      assert.strictEqual((yield* json(taken))["type"], "urn:stoker:problem:id-taken")
      assert.strictEqual((yield* ask("/v1/jobs/one")).status, 200)
      assert.strictEqual((yield* ask("/v1/jobs/one", { method: "DELETE" })).status, 409)
      const stopped = yield* ask("/v1/jobs/one/stop", start({ graceMs: 0, reason: "enough" }))
      assert.deepStrictEqual((yield* json(stopped))["outcome"], { _tag: "Stopped", reason: "enough" })
      assert.strictEqual((yield* ask("/v1/jobs/one/stop", { method: "POST" })).status, 200)
      const listed = yield* json(yield* ask("/v1/jobs?state=ended&limit=1"))
      assert.lengthOf(listed["jobs"] as ReadonlyArray<unknown>, 1)
      const gone = yield* ask("/v1/jobs/one", { method: "DELETE" })
      assert.strictEqual(gone.status, 204)
      assert.strictEqual((yield* ask("/v1/jobs/one")).status, 404)
    }).pipe(Effect.scoped, Effect.provide(Memory.layer())))

  it.live("every error is a problem that says what to do", () =>
    Effect.gen(function*() {
      const ask = yield* Memory.make({ maximumBodyBytes: 2000 })
      const post = (body: string, headers = {}) => ask("/v1/jobs", { method: "POST", body, headers })
      const deep = `{"function":"fib","args":${"[".repeat(300)}${"]".repeat(300)}}`
      const cases: ReadonlyArray<readonly [number, string, Response]> = [
        [404, "unknown-path", yield* ask("/nothing")],
        [404, "unknown-path", yield* ask("/v1/jobs/%zz")],
        [404, "unknown-job", yield* ask("/v1/jobs/none")],
        [400, "invalid-request", yield* ask("/v1/jobs/-bad-id")],
        [405, "unknown-method", yield* ask("/v1/jobs", { method: "DELETE" })],
        [405, "unknown-method", yield* ask("/openapi.json", { method: "POST", body: "{}" })],
        [400, "invalid-request", yield* post("{")],
        [400, "invalid-request", yield* post("")],
        [400, "invalid-request", yield* post("null")],
        [400, "invalid-request", yield* post("{\"function\":\"fib\",\"extra\":1}")],
        [400, "invalid-request", yield* post(deep)],
        [400, "invalid-request", yield* post("{\"function\":\"fib\",\"limits\":{\"wallMs\":\"1\"}}")],
        [415, "not-json", yield* post("{}", { "content-type": "text/plain" })],
        [413, "too-large", yield* post("x".repeat(3000))],
        [422, "invalid-arguments", yield* post("{\"function\":\"fib\",\"args\":{\"position\":\"x\"}}")],
        [400, "invalid-request", yield* post("{\"function\":\"none\"}")],
        [503, "overloaded", yield* post("{\"function\":\"full\"}")],
        [503, "unavailable", yield* post("{\"function\":\"away\"}")],
        [403, "forbidden", yield* ask("/v1/jobs", { ...start({ function: "fib" }), as: "none" })],
        [401, "unauthenticated", yield* ask("/v1/jobs", { as: "nobody" })],
        [400, "invalid-request", yield* ask("/v1/jobs?limit=0")],
        [400, "invalid-request", yield* ask("/v1/jobs?state=gone")],
        [404, "unknown-path", yield* ask("/v1/functions/none")],
        [500, "internal", yield* post("{\"function\":\"defect\"}")]
      ]
      for (const [status, name, response] of cases) {
        const body = yield* json(response)
        assert.strictEqual(response.status, status, JSON.stringify(body))
        assert.strictEqual(response.headers.get("content-type"), "application/problem+json", name)
        assert.strictEqual(body["type"], `urn:stoker:problem:${name}`, JSON.stringify(body))
        assert.strictEqual(body["status"], status)
        for (const word of ["title", "detail", "remedy"]) assert.isAbove(String(body[word] ?? "").length, 4, name)
        if (status === 500) assert.match(String(body["instance"]), /^urn:uuid:/)
        if (status === 405) assert.isNotNull(response.headers.get("allow"))
        if (status === 503) assert.isNotNull(response.headers.get("retry-after"))
        if (status === 401) assert.isNotNull(response.headers.get("www-authenticate"))
      }
    }).pipe(Effect.scoped, Effect.provide(Memory.layer())))

  it.live("who asks too often is told when to come back; others are not held up", () =>
    Effect.gen(function*() {
      const ask = yield* Memory.make({ rateLimit: { perSecond: 0.01, burst: 2 } })
      const seen = [yield* ask("/v1/jobs"), yield* ask("/v1/jobs"), yield* ask("/v1/jobs")]
      assert.deepStrictEqual(seen.map(({ status }) => status), [200, 200, 429])
      assert.isAbove(Number(seen[2]?.headers.get("retry-after")), 50)
      assert.strictEqual((yield* ask("/v1/jobs", { as: "bob" })).status, 200)
    }).pipe(Effect.scoped, Effect.provide(Memory.layer())))

  it.live("output comes whole and by ranges, and says how it stands", () =>
    Effect.gen(function*() {
      const hand = yield* Hand
      const ask = yield* Memory.make()
      yield* ask("/v1/jobs", start({ function: "fib", id: "one" }))
      yield* hand.write("one", "stdout", Buffer.from("0123456789"))
      const range = (value: string, more = "") =>
        ask(`/v1/jobs/one/output?stream=stdout${more}`, { headers: { range: value } })
      const whole = yield* ask("/v1/jobs/one/output")
      assert.strictEqual(whole.headers.get("stoker-output"), "running")
      assert.strictEqual(yield* text(whole), "0123456789")
      const some = yield* range("bytes=2-4")
      assert.strictEqual(some.status, 206)
      assert.strictEqual(some.headers.get("content-range"), "bytes 2-4/*")
      assert.strictEqual(yield* text(some), "234")
      const none = yield* range("bytes=10-")
      assert.strictEqual(none.status, 416)
      assert.strictEqual(none.headers.get("content-range"), "bytes */10")
      const [more] = yield* Effect.all([
        range("bytes=10-", "&wait=5"),
        Effect.delay(hand.write("one", "stdout", Buffer.from("abc")), "50 millis")
      ], { concurrency: 2 })
      assert.strictEqual(yield* text(more), "abc")
      yield* hand.end("one")
      const tail = yield* range("bytes=-5")
      assert.strictEqual(tail.headers.get("content-range"), "bytes 8-12/13")
      assert.strictEqual(yield* text(tail), "89abc")
      const open = yield* range("bytes=11-999")
      assert.strictEqual(open.headers.get("content-range"), "bytes 11-12/13")
      assert.strictEqual(open.headers.get("stoker-output"), "complete")
      assert.strictEqual((yield* range("bytes=3-1")).status, 200)
      assert.strictEqual((yield* range("bytes=0-1,4-5")).status, 200)
      const etag = String(open.headers.get("etag"))
      const same = yield* ask("/v1/jobs/one/output?stream=stdout", {
        headers: { range: "bytes=0-0", "if-range": etag }
      })
      assert.strictEqual(same.status, 206)
      const other = yield* ask("/v1/jobs/one/output", { headers: { range: "bytes=0-0", "if-range": "\"x\"" } })
      assert.strictEqual(other.status, 200)
      const head = yield* ask("/v1/jobs/one/output", { method: "HEAD" })
      assert.strictEqual(head.headers.get("content-length"), "13")
    }).pipe(Effect.scoped, Effect.provide(Memory.layer())))

  it.live("bytes that were not kept are never made up, and said", () =>
    Effect.gen(function*() {
      const hand = yield* Hand
      const ask = yield* Memory.make()
      yield* ask("/v1/jobs", start({ function: "fib", id: "one" }))
      for (let n = 0; n < 10; n++) yield* hand.write("one", "stdout", Buffer.from(`${n}`.repeat(10)))
      yield* hand.end("one")
      const whole = yield* ask("/v1/jobs/one/output?stream=stdout")
      const kept = yield* text(whole)
      const dropped = Number(whole.headers.get("stoker-dropped-bytes"))
      assert.isAbove(dropped, 0)
      assert.strictEqual(kept.length + dropped, 100)
      const first = yield* ask("/v1/jobs/one/output?stream=stdout", { headers: { range: "bytes=0-" } })
      assert.strictEqual(first.status, 206)
      const gap = String(first.headers.get("stoker-gap"))
      const [from = 0, to = 0] = gap.split("-").map(Number)
      assert.strictEqual(to - from + 1, dropped)
      assert.strictEqual(first.headers.get("content-range"), `bytes 0-${from - 1}/100`)
      const head = yield* text(first)
      assert.lengthOf(head, from)
      const inside = yield* ask("/v1/jobs/one/output?stream=stdout", { headers: { range: `bytes=${from}-` } })
      assert.strictEqual(inside.status, 416)
      assert.strictEqual(inside.headers.get("stoker-gap"), gap)
      const rest = yield* ask("/v1/jobs/one/output?stream=stdout", { headers: { range: `bytes=${to + 1}-` } })
      assert.strictEqual(head + (yield* text(rest)), kept)
    }).pipe(Effect.scoped, Effect.provide(Memory.layer(40))))

  it.live("events are followed, resumed where they were left, and not begun again after the end", () =>
    Effect.gen(function*() {
      const hand = yield* Hand
      const ask = yield* Memory.make()
      yield* ask("/v1/jobs", start({ function: "fib", id: "one" }))
      yield* hand.write("one", "stdout", Buffer.from("héllo\n"))
      yield* hand.write("one", "stderr", Uint8Array.of(0xff, 0))
      yield* hand.end("one")
      const events = yield* text(yield* ask("/v1/jobs/one/events"))
      assert.include(events, "event: begun")
      assert.include(events, "\"text\":\"héllo\\n\"")
      assert.include(events, "\"base64\":\"/wA=\"")
      assert.include(events, "event: end")
      const ids = [...events.matchAll(/^id: (.*)$/gm)].map(([, id]) => String(id))
      assert.match(String(ids[1]), /^7@/)
      const rest = yield* text(yield* ask("/v1/jobs/one/events", { headers: { "last-event-id": String(ids[1]) } }))
      assert.notInclude(rest, "héllo")
      assert.include(rest, "/wA=")
      const over = yield* ask("/v1/jobs/one/events", { headers: { "last-event-id": String(ids.at(-1)) } })
      assert.strictEqual(over.status, 204)
      const lines = yield* text(yield* ask("/v1/jobs/one/events", { headers: { accept: "application/x-ndjson" } }))
      const parsed = lines.split("\n").filter((line) => line !== "").map((line) =>
        JSON.parse(line) as { event: string }
      )
      assert.deepStrictEqual(parsed.map(({ event }) => event), ["begun", "output", "output", "end"])
      assert.strictEqual((yield* ask("/v1/jobs/one/events", { headers: { "last-event-id": "x" } })).status, 400)
      assert.strictEqual((yield* ask("/v1/jobs/one/events?offset=1&newOnly=true")).status, 400)
      assert.strictEqual((yield* ask("/v1/jobs/none/events")).status, 404)
      assert.strictEqual((yield* ask("/v1/jobs/one/events", { as: "bob" })).status, 404)
      assert.strictEqual((yield* ask("/v1/jobs/one/events?owner=alice", { as: "admin" })).status, 200)
    }).pipe(Effect.scoped, Effect.provide(Memory.layer())))

  it.live("files that a job left come whole and by ranges, by paths as they are", () =>
    Effect.gen(function*() {
      const hand = yield* Hand
      const ask = yield* Memory.make()
      yield* ask("/v1/jobs", start({ function: "fib", id: "one" }))
      const content = Uint8Array.from({ length: 3_000_000 }, (_, n) => n * n % 251)
      yield* hand.leave("one", "out dir/ä'.bin", content)
      yield* hand.leave("one", "empty", new Uint8Array())
      yield* hand.end("one")
      const bytes = (response: Response) => Effect.promise(() => response.bytes())
      for (const path of ["out%20dir/%C3%A4'.bin", "out%20dir%2F%C3%A4'.bin"]) {
        const whole = yield* ask(`/v1/jobs/one/artefacts/${path}`)
        assert.strictEqual(whole.status, 200, path)
        assert.include(String(whole.headers.get("content-disposition")), "%C3%A4%27.bin")
        assert.isTrue(Buffer.from(content).equals(yield* bytes(whole)))
        const part = yield* ask(`/v1/jobs/one/artefacts/${path}`, { headers: { range: "bytes=1048570-2500000" } })
        assert.strictEqual(part.headers.get("content-range"), "bytes 1048570-2500000/3000000")
        assert.isTrue(Buffer.from(content.subarray(1_048_570, 2_500_001)).equals(yield* bytes(part)))
      }
      assert.strictEqual((yield* ask("/v1/jobs/one/artefacts/empty")).headers.get("content-length"), "0")
      const none = yield* ask("/v1/jobs/one/artefacts/none/at/all")
      assert.strictEqual(none.status, 404)
      assert.include(String((yield* json(none))["remedy"]), "status")
      assert.strictEqual((yield* ask("/v1/jobs/one/artefacts/empty", { method: "POST", body: "" })).status, 405)
      assert.strictEqual((yield* ask("/v1/jobs/one/artefacts/a/b", { as: "nobody" })).status, 401)
    }).pipe(Effect.scoped, Effect.provide(Memory.layer())))
})
