/** The same suite as the tests' own store, against real ones: Swift's S3 API and Ceph's radosgw. `npm run test:objectstore`. */
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { createHash, randomBytes } from "node:crypto"
import { ObjectStore } from "../../src/layers/objectstore/ObjectStore.ts"
import { clientOf, MiB, other, pieces, type Server, suite } from "../objectstore/suite.ts"
import { byBoto, Servers, startRadosgw, startSwift } from "./servers.ts"

const stores = [["Swift", startSwift], ["radosgw", startRadosgw]] as const

for (const [name, start] of stores) {
  describe(`${name}`, () => {
    const servers = new Servers()
    let server: Server | undefined
    const there = () => {
      assert.isDefined(server, "it did not start")
      return server
    }
    beforeAll(async () => {
      server = await start(servers).catch((error: unknown) => {
        throw new Error(`${String(error)}\n${servers.logs()}`)
      })
    }, 240_000)
    afterAll(() => servers.stop(), 60_000)

    suite(there, async (bucket) => {
      await other(there(), ["make", bucket])
    })

    it.live("boto3 gets what was put in parts", () =>
      Effect.gen(function*() {
        const bytes = randomBytes(17 * MiB)
        yield* Effect.promise(() => other(there(), ["make", "for-boto"]))
        const { etag } = yield* (yield* ObjectStore).put("for-boto", "parts", pieces(bytes))
        const said = byBoto(servers, there(), "for-boto", "parts")
        assert.strictEqual(said, `${createHash("sha256").update(bytes).digest("hex")} "${etag}"`)
      }).pipe((body) => Effect.suspend(() => Effect.provide(body, clientOf(there())))), 120_000)
  })
}
