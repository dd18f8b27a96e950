/** Our client against the tests' own strict store: what any store must do, and what this one can be made to do wrong. */
import { afterAll, afterEach, assert, beforeAll, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { randomBytes } from "node:crypto"
import { createServer } from "node:net"
import { ObjectStore } from "../../src/layers/objectstore/ObjectStore.ts"
import { PART_BYTES } from "../../src/layers/objectstore/ObjectStoreS3.ts"
import type { ObjectStoreConfig } from "../../src/schemas/ObjectStoreConfig.ts"
import { type Fault, type Seen, StrictS3 } from "./StrictS3.ts"
import { clientOf, MiB, pieces, suite, whole, whyNot } from "./suite.ts"

const server = new StrictS3()

beforeAll(async () => {
  await server.start()
})
afterEach(() => {
  server.fault = () => undefined
  server.seen.length = 0
})
afterAll(() => server.stop())

describe("the tests' own store", () => {
  suite(() => server, (bucket) => Promise.resolve(void server.bucket(bucket)))
})

/** Each of these once, at the first request that it is for. */
const faults = (which: (seen: Seen) => boolean, ...list: ReadonlyArray<Fault>) => {
  const left = [...list]
  server.fault = (seen) => which(seen) ? left.shift() : undefined
}
const always = (which: (seen: Seen) => boolean, fault: Fault) => {
  server.fault = (seen) => which(seen) ? fault : undefined
}
const isGet = ({ key, method }: Seen) => method === "GET" && key !== ""
const isPut = ({ method }: Seen) => method === "PUT"

describe("a store that fails", () => {
  const bucket = "faulty"
  const short = { timeoutMs: 1000, patienceMs: 2000 }
  beforeAll(() => void server.bucket(bucket))
  const test = (
    name: string,
    body: Effect.Effect<unknown, unknown, ObjectStore>,
    config: Partial<ObjectStoreConfig> = {}
  ) => it.live(name, () => Effect.suspend(() => body.pipe(Effect.provide(clientOf(server, config)))), 60_000)
  const big = randomBytes(2 * PART_BYTES + 4321)

  test(
    "a read that is cut is gone on with where it was, as often as it takes",
    Effect.gen(function*() {
      const store = yield* ObjectStore
      for (const size of [300_000, big.length]) {
        const bytes = big.subarray(0, size)
        yield* store.put(bucket, "cut", pieces(bytes))
        server.seen.length = 0
        faults(
          isGet,
          { kind: "cut", after: 100_000 },
          { kind: "reset" },
          { kind: "cut", after: 0 },
          { kind: "status", status: 503, code: "SlowDown" },
          { kind: "cut", after: 77_777 }
        )
        assert.isTrue(bytes.equals(yield* whole(store.get(bucket, "cut"))), `${size}`)
        const gets = server.seen.filter(isGet)
        assert.strictEqual(gets.length, 6)
        assert.isTrue(gets.slice(1).every(({ headers }) => headers["if-match"] !== undefined))
        assert.isTrue(gets.slice(1).every(({ headers }) => headers.range !== "bytes=0-"))
      }
    })
  )

  test(
    "a read that falls silent is gone on with; one that is never answered is told as such",
    Effect.gen(function*() {
      const store = yield* ObjectStore
      yield* store.put(bucket, "silent", pieces(big))
      faults(isGet, { kind: "stall", after: 1_000_000 }, { kind: "silent" })
      assert.isTrue(big.equals(yield* whole(store.get(bucket, "silent"))))
      always(isGet, { kind: "silent" })
      const why = yield* whyNot(whole(store.get(bucket, "silent")))
      assert.strictEqual(why.code, "TimedOut")
      assert.include(why.message, "objectStore.timeout")
    }),
    short
  )

  test(
    "a read that only trickles is given up",
    Effect.gen(function*() {
      const store = yield* ObjectStore
      yield* store.put(bucket, "slow", pieces(big))
      always(isGet, { kind: "trickle", bytes: 100 })
      const why = yield* whyNot(whole(store.get(bucket, "slow")))
      assert.strictEqual(why.code, "TooSlow")
    }),
    short
  )

  test(
    "an object that is replaced while it is read is never mixed of both",
    Effect.gen(function*() {
      const store = yield* ObjectStore
      yield* store.put(bucket, "changed", pieces(big))
      server.fault = (seen) => {
        if (!isGet(seen)) return undefined
        if (seen.headers.range === undefined) return { kind: "cut", after: 500_000 }
        server.put(bucket, "changed", "something else")
        return undefined
      }
      const why = yield* whyNot(whole(store.get(bucket, "changed")))
      assert.strictEqual(why.code, "Changed")
    })
  )

  test(
    "an object that went over the wire wrong is told as corrupt",
    Effect.gen(function*() {
      const store = yield* ObjectStore
      yield* store.put(bucket, "flipped", pieces(big.subarray(0, MiB)))
      faults(isGet, { kind: "flip", after: 1234 })
      assert.strictEqual((yield* whyNot(whole(store.get(bucket, "flipped")))).code, "Corrupt")
    })
  )

  test(
    "parts and small objects are sent again when the store or the wire fails",
    Effect.gen(function*() {
      const store = yield* ObjectStore
      for (const size of [12_345, big.length]) {
        const bytes = big.subarray(0, size)
        faults(
          isPut,
          { kind: "status", status: 503, code: "SlowDown", retryAfter: 1 },
          { kind: "reset" },
          { kind: "unheard" },
          { kind: "status", status: 500 },
          { kind: "status", status: 400, code: "BadDigest" }
        )
        yield* store.put(bucket, "again", pieces(bytes))
        assert.isTrue(bytes.equals(server.content(bucket, "again") ?? Buffer.alloc(0)), `${size}`)
      }
      assert.strictEqual(server.uploads.size, 0)
    })
  )

  test(
    "a completion that was done unheard is found out, and one that fails late is asked for again",
    Effect.gen(function*() {
      const store = yield* ObjectStore
      const isCompletion = ({ method, query }: Seen) => method === "POST" && query.has("uploadId")
      faults(isCompletion, { kind: "late-error", code: "InternalError" }, { kind: "unheard" })
      const { bytes } = yield* store.put(bucket, "completed", pieces(big))
      assert.strictEqual(bytes, big.length)
      assert.isTrue(big.equals(server.content(bucket, "completed") ?? Buffer.alloc(0)))
      faults(isCompletion, { kind: "late-error", code: "AccessDenied" })
      const why = yield* whyNot(store.put(bucket, "not-completed", pieces(big)))
      assert.strictEqual(why.code, "AccessDenied")
      assert.isUndefined(server.content(bucket, "not-completed"))
      assert.strictEqual(server.uploads.size, 0)
    })
  )

  test(
    "what was kept only in part, or wrong, is told and does not stay",
    Effect.gen(function*() {
      const store = yield* ObjectStore
      faults(isPut, { kind: "lose", keep: 10 })
      const corrupt = yield* whyNot(store.put(bucket, "lost", pieces(big.subarray(0, 1000))))
      assert.strictEqual(corrupt.code, "Corrupt")
      faults(({ query }) => query.get("partNumber") === "2", { kind: "lose", keep: 6 * MiB })
      const truncated = yield* whyNot(store.put(bucket, "lost", pieces(big)))
      assert.strictEqual(truncated.code, "Truncated")
      assert.isUndefined(server.content(bucket, "lost"))
    })
  )

  test(
    "a store that is not there is told as unreachable once patience is over, one that comes back is used",
    Effect.gen(function*() {
      const port = yield* Effect.promise(() =>
        new Promise<number>((resolve) => {
          const probe = createServer().listen(0, "127.0.0.1", () => {
            const address = probe.address()
            probe.close(() => resolve(typeof address === "object" ? address?.port ?? 0 : 0))
          })
        })
      )
      const late = new StrictS3()
      late.put(bucket, "there", "at last")
      const away = { accessKey: late.accessKey, secretKey: late.secretKey, endpoint: `http://127.0.0.1:${port}` }
      const ask = Effect.flatMap(ObjectStore, (store) => whole(store.get(bucket, "there")))
      const why = yield* whyNot(ask).pipe(Effect.provide(clientOf(away, { patienceMs: 300 })))
      assert.strictEqual(why.code, "Unreachable")
      const [got] = yield* Effect.all([
        Effect.provide(ask, clientOf(away)),
        Effect.andThen(Effect.sleep("1 second"), Effect.promise(() => late.start(port)))
      ], { concurrency: "unbounded" })
      assert.strictEqual(got.toString(), "at last")
      yield* Effect.promise(() => late.stop())
    })
  )

  test(
    "another region, another key, and what is no store at all are told apart",
    Effect.gen(function*() {
      const ask = whyNot(Effect.flatMap(ObjectStore, (store) => Stream.runCollect(store.list(bucket, ""))))
      const region = yield* Effect.provide(ask, clientOf(server, { region: "eu-west-1" }))
      assert.include(region.message, "Set objectStore.region to us-east-1.")
      const key = yield* Effect.provide(ask, clientOf({ ...plainServer(), accessKey: "nobody" }))
      assert.strictEqual(key.code, "InvalidAccessKeyId")
      always(() => true, { kind: "status", status: 403, code: "AccessDenied" })
      assert.include((yield* ask).message, "Give the worker's access key the right")
    })
  )

  test(
    "no more than two parts are in memory while the store is slow",
    Effect.gen(function*() {
      const store = yield* ObjectStore
      let produced = 0
      let stored = 0
      let most = 0
      const piece = Buffer.alloc(MiB)
      server.fault = (seen) => {
        if (seen.query.has("partNumber")) stored += seen.bodyBytes
        return undefined
      }
      const source = Stream.fromEffectRepeat(Effect.suspend(() => {
        most = Math.max(most, produced - stored)
        if (produced === 96 * MiB) return Effect.fail("enough" as const)
        produced += MiB
        return Effect.succeed(piece)
      }))
      assert.strictEqual(yield* Effect.flip(store.put(bucket, "much", source)), "enough")
      assert.isAtMost(most, 2 * PART_BYTES + MiB)
      assert.strictEqual(server.uploads.size, 0)
    })
  )
})

const plainServer = () => ({ endpoint: server.endpoint, accessKey: server.accessKey, secretKey: server.secretKey })
