import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Redacted } from "effect"
import * as Endpoint from "../../src/layers/amqp/Endpoint.ts"

const read = (url: string) =>
  Endpoint.make({
    url: Redacted.make(url),
    connectTimeout: Duration.seconds(5),
    heartbeat: Duration.seconds(10),
    tls: undefined
  })

describe("Endpoint", () => {
  it.effect("prints host and port, with the protocol's default, and nothing else", () =>
    Effect.gen(function*() {
      const cases = [
        ["amqp://u:p@host", "host:5672"],
        ["amqps://u:p@host/v", "host:5671"],
        ["amqp://u:p@[::1]:77/v?heartbeat=3", "[::1]:77"]
      ] as const
      for (const [url, address] of cases) {
        const endpoint = yield* read(url)
        assert.strictEqual(endpoint.address, address)
        assert.notInclude(`${JSON.stringify(endpoint)}${String(endpoint.url)}`, "u:p")
      }
    }))

  it.effect("adds a heartbeat, unless the URL has its own", () =>
    Effect.gen(function*() {
      assert.strictEqual(Redacted.value((yield* read("amqp://host/v")).url), "amqp://host/v?heartbeat=10")
      assert.strictEqual(Redacted.value((yield* read("amqp://host/v?heartbeat=3")).url), "amqp://host/v?heartbeat=3")
    }))
})
