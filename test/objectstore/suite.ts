/** What our client does with any store, looked at by another client: the tests' own store, Swift, radosgw. */
import { assert, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Redacted, Stream } from "effect"
import { execFile } from "node:child_process"
import { createHash, randomBytes } from "node:crypto"
import { join } from "node:path"
import { ObjectStore, type ObjectStoreError } from "../../src/layers/objectstore/ObjectStore.ts"
import * as ObjectStoreS3 from "../../src/layers/objectstore/ObjectStoreS3.ts"
import { type ObjectStoreConfig, standardObjectStore } from "../../src/schemas/ObjectStoreConfig.ts"

export interface Server {
  readonly endpoint: string
  readonly accessKey: string
  readonly secretKey: string
}

export const MiB = 1024 * 1024
export const region = "us-east-1"

/** Our client of that server. */
export const clientOf = (
  { accessKey, endpoint, secretKey }: Server,
  config: Partial<ObjectStoreConfig> = {}
) =>
  ObjectStoreS3.layer(
    { ...standardObjectStore, timeoutMs: 20_000, patienceMs: 20_000, endpoint, ...config },
    { accessKey: Redacted.make(accessKey), secretKey: Redacted.make(secretKey) }
  )

/** Another one, in Python. */
export const other = (
  { accessKey, endpoint, secretKey }: Server,
  words: ReadonlyArray<string>,
  input: Uint8Array = new Uint8Array()
): Promise<Buffer> =>
  new Promise((resolve, reject) => {
    const script = join(import.meta.dirname, "other_client.py")
    const child = execFile(
      "/usr/bin/python3",
      [script, endpoint, region, accessKey, secretKey, ...words],
      { encoding: "buffer", maxBuffer: 256 * MiB },
      (error, stdout, stderr) => error === null ? resolve(stdout) : reject(new Error(stderr.toString()))
    )
    child.stdin?.end(input)
  })

/** Its objects, by the other client. */
export const listed = async (server: Server, bucket: string, prefix = "") =>
  (await other(server, ["list", bucket, prefix])).toString().trim().split("\n").filter((line) => line !== "")
    .map((line) => JSON.parse(line) as { readonly key: string; readonly bytes: number })

/** In pieces of uneven sizes, as they come from anywhere. */
export const pieces = (bytes: Buffer, size = 100_003): Stream.Stream<Uint8Array> =>
  Stream.fromIterable((function*() {
    for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
  })())

export const whole = <E>(stream: Stream.Stream<Uint8Array, E>) =>
  Effect.map(Stream.runCollect(stream), (parts) => Buffer.concat(parts))

export const whyNot = <A>(effect: Effect.Effect<A, ObjectStoreError, ObjectStore>) => Effect.flip(effect)

const sha = (bytes: Buffer) => createHash("sha256").update(bytes).digest("hex")

/** `make`: a bucket, by other means than ours. */
export const suite = (server: () => Server, make: (bucket: string) => Promise<void>) => {
  let buckets = 0
  const stamp = Date.now().toString(36)
  const fresh = Effect.promise(async () => {
    const name = `stoker-${stamp}-${++buckets}`
    await make(name)
    return name
  })
  const test = (name: string, body: Effect.Effect<unknown, unknown, ObjectStore>) =>
    it.live(name, () => Effect.suspend(() => body.pipe(Effect.provide(clientOf(server())))), 120_000)

  test(
    "what is put is what another client gets, of any size",
    Effect.gen(function*() {
      const bucket = yield* fresh
      const store = yield* ObjectStore
      const part = ObjectStoreS3.PART_BYTES
      for (const size of [0, 1, 65_536, 65_537, part - 1, part, part + 1, 2 * part, 3 * part + 12_345]) {
        const bytes = randomBytes(size)
        const put = yield* store.put(bucket, `of ${size}`, pieces(bytes))
        assert.strictEqual(put.bytes, size)
        assert.strictEqual(put.etag.endsWith(`-${Math.ceil(size / part)}`), size > part, `${size}: ${put.etag}`)
        const theirs = yield* Effect.promise(() => other(server(), ["get", bucket, `of ${size}`]))
        assert.strictEqual(sha(theirs), sha(bytes), `${size}`)
        assert.strictEqual(sha(yield* whole(store.get(bucket, `of ${size}`))), sha(bytes), `${size}`)
      }
    })
  )

  test(
    "what another client puts is what is got",
    Effect.gen(function*() {
      const bucket = yield* fresh
      const bytes = randomBytes(5 * MiB + 17)
      yield* Effect.promise(() => other(server(), ["put", bucket, "theirs"], bytes))
      assert.strictEqual(sha(yield* whole((yield* ObjectStore).get(bucket, "theirs"))), sha(bytes))
    })
  )

  test(
    "names of all kinds are put, listed, got and deleted",
    Effect.gen(function*() {
      const bucket = yield* fresh
      const store = yield* ObjectStore
      const names = [
        "plain",
        "a/b/c.txt",
        "with space",
        "a+b",
        "ünï¢ode",
        "100%",
        "q?x=1&y#z",
        "it's (so)!*",
        "~tilde",
        "<&>\""
      ]
      for (const name of names) yield* store.put(bucket, name, pieces(Buffer.from(name)))
      const ours = yield* Stream.runCollect(store.list(bucket, ""))
      assert.deepStrictEqual(ours.map(({ key }) => key).toSorted(), names.toSorted())
      const theirs = yield* Effect.promise(() => listed(server(), bucket))
      assert.deepStrictEqual(theirs.map(({ key }) => key).toSorted(), names.toSorted())
      for (const name of names) {
        assert.strictEqual((yield* whole(store.get(bucket, name))).toString(), name)
        yield* store.delete(bucket, name)
      }
      assert.deepStrictEqual(yield* Effect.promise(() => listed(server(), bucket)), [])
      yield* store.delete(bucket, "was never there")
    })
  )

  test(
    "a prefix is listed page by page, and nothing else",
    Effect.gen(function*() {
      const bucket = yield* fresh
      const store = yield* ObjectStore
      const names = Array.from({ length: 1030 }, (_, index) => `run-${String(index).padStart(4, "0")}`)
      yield* Effect.forEach([...names, "rum", "run", "ruo-1"], (name) => store.put(bucket, name, Stream.empty), {
        concurrency: 16,
        discard: true
      })
      const found = yield* Stream.runCollect(store.list(bucket, "run-"))
      assert.deepStrictEqual(found.map(({ key }) => key), names)
      assert.isTrue(found.every(({ bytes }) => bytes === 0))
    })
  )

  test(
    "refusals are told with the store's code and a remedy",
    Effect.gen(function*() {
      const bucket = yield* fresh
      const store = yield* ObjectStore
      const wrongKey = { endpoint: server().endpoint, accessKey: server().accessKey, secretKey: "another" }
      const missing = yield* whyNot(whole(store.get(bucket, "none")))
      assert.deepInclude(missing, { operation: "get", bucket, key: "none", code: "NoSuchKey" })
      const bucketless = yield* whyNot(Stream.runCollect(store.list(`${bucket}-none`, "")))
      assert.deepInclude(bucketless, { operation: "list", code: "NoSuchBucket" })
      assert.include(bucketless.message, "Make the bucket")
      for (const size of [1, 6 * MiB, 17 * MiB]) {
        const refused = yield* whyNot(store.put(`${bucket}-none`, "a", pieces(Buffer.alloc(size))))
        assert.deepInclude(refused, { operation: "put", code: "NoSuchBucket" }, `${size}: ${refused.message}`)
        const wrong = yield* Effect.flatMap(
          ObjectStore,
          (another) => whyNot(another.put(bucket, "a", pieces(Buffer.alloc(size))))
        ).pipe(Effect.provide(clientOf(wrongKey)))
        assert.deepInclude(wrong, { code: "SignatureDoesNotMatch" }, `${size}: ${wrong.message}`)
        assert.include(wrong.message, "secretKeyFile")
      }
    })
  )

  test(
    "nothing stays of an upload whose source fails, or that is broken off",
    Effect.gen(function*() {
      const bucket = yield* fresh
      const store = yield* ObjectStore
      const bytes = randomBytes(20 * MiB)
      const failed = yield* Effect.flip(
        store.put(bucket, "failed", Stream.concat(pieces(bytes), Stream.fail("the source" as const)))
      )
      assert.strictEqual(failed, "the source")
      const endless = yield* Effect.forkChild(
        store.put(bucket, "broken-off", Stream.concat(pieces(bytes), Stream.never)),
        { startImmediately: true }
      )
      const begun = Effect.promise(() => other(server(), ["uploads", bucket]))
      yield* Effect.repeat(begun, { until: (said) => said.length > 0, times: 200 })
      yield* Fiber.interrupt(endless)
      assert.isTrue(Exit.isFailure(yield* Fiber.await(endless)))
      assert.strictEqual((yield* begun).toString(), "")
      assert.deepStrictEqual(yield* Effect.promise(() => listed(server(), bucket)), [])
    })
  )
}
