import { assert, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { FetchHttpClient } from "effect/http"
import { HttpApiClient } from "effect/http-api"
import { StokerHttpApi } from "../../src/schemas/api/HttpApi.ts"
import { Hand } from "./FakeApi.ts"
import * as Memory from "./Memory.ts"

describe("a client made from the API's definition", () => {
  it.live("starts, follows, reads and is told errors as values", () =>
    Effect.gen(function*() {
      const ask = yield* Memory.make()
      const hand = yield* Hand
      const client = yield* HttpApiClient.make(StokerHttpApi, { baseUrl: "https://localhost" }).pipe(
        Effect.provide(FetchHttpClient.layer)
      )
      const overMemory = Effect.provideService(FetchHttpClient.Fetch, (input, init) => {
        const request = new Request(input, init)
        const { pathname, search } = new URL(request.url)
        return request.text().then((body) =>
          Effect.runPromise(ask(`${pathname}${search}`, {
            method: request.method,
            headers: Object.fromEntries(request.headers),
            ...(body === "" ? {} : { body })
          }))
        )
      })
      yield* Effect.gen(function*() {
        const job = yield* client.start({
          payload: { function: "fib", args: { position: 3 }, id: "one" },
          query: { wait: 1 },
          headers: {}
        })
        assert.strictEqual(job.state, "running")
        yield* hand.write("one", "stdout", Buffer.from("ä\n"))
        yield* hand.write("one", "stderr", Uint8Array.of(0xff))
        yield* hand.leave("one", "a/b", Buffer.from("content"))
        yield* hand.end("one")
        const events = yield* client.events({ params: { id: "one" }, query: {}, headers: {} }).pipe(
          Effect.flatMap(Stream.runCollect)
        )
        assert.deepStrictEqual(events.map(({ event }) => event), ["begun", "output", "output", "end"])
        const [, first, second, last] = events
        assert.deepInclude(first?.data, { offset: 0, text: "ä\n" })
        assert.deepInclude(second?.data, { offset: 3, base64: "/w==" })
        assert.isTrue(last?.event === "end" && last.data.job.state === "ended")
        const bytes = yield* client.output({ params: { id: "one" }, query: { stream: "stdout" }, headers: {} }).pipe(
          Effect.flatMap(Stream.runCollect)
        )
        assert.strictEqual(Buffer.concat(bytes).length, 3)
        const file = yield* client.artefact({ params: { id: "one", path: "a/b" }, query: {}, headers: {} }).pipe(
          Effect.flatMap(Stream.runCollect)
        )
        assert.strictEqual(Buffer.concat(file).toString(), "content")
        assert.lengthOf((yield* client.list({ query: { limit: 5 } })).jobs, 1)
        assert.strictEqual((yield* client.function({ params: { name: "fib" } })).title, "Fibonacci")
        const unknown = yield* Effect.flip(client.status({ params: { id: "two" }, query: {} }))
        assert.deepInclude(unknown, { status: 404, type: "urn:stoker:problem:unknown-job" })
        yield* client.delete({ params: { id: "one" }, query: {} })
        const stopped = yield* Effect.flip(client.stop({ params: { id: "one" }, query: {}, payload: { graceMs: 0 } }))
        assert.deepInclude(stopped, { status: 404 })
      }).pipe(overMemory)
    }).pipe(Effect.scoped, Effect.provide(Memory.layer())))
})
