/**
 * Any store that speaks S3. What is asked is what old stores know as well (Swift, radosgw): plain PUT with Content-MD5, multipart
 * uploads, ranges; no aws-chunked bodies, no trailing checksums.
 */
import { Cause, Effect, Exit, Fiber, Layer, Option, Random, Result, Schedule, Scope, Stream } from "effect"
import { createHash } from "node:crypto"
import type { ObjectStoreConfig } from "../../schemas/ObjectStoreConfig.ts"
import { monotonicMs } from "../Now.ts"
import { within } from "../Release.ts"
import { makeGather, type Part } from "./Gather.ts"
import { ObjectStore, type ObjectStoreError, type StoredObject } from "./ObjectStore.ts"
import * as StoreHttp from "./StoreHttp.ts"
import { told, type Trouble, trouble } from "./StoreTrouble.ts"
import { bare, completion, decodedKey, each, errorOf, textOf } from "./StoreXml.ts"
import { type Upload, Uploads } from "./Uploads.ts"

/** Bytes of a part; each but the last one has so many. At least 5 MiB, says S3. */
export const PART_BYTES = 8 * 1024 * 1024
const MOST_PARTS = 10_000

/** In memory, of one object: on their way, or being gathered while the other is. */
const PARTS_HELD = 2
/** So many bytes are gathered before sockets have their turn. */
const BREATH_BYTES = 256 * 1024

/** The longest pause between two tries. */
const LONGEST_PAUSE_MS = 5000
/** Between two looks for what dead workers had begun. */
const SWEEP = "30 seconds"
/** Putting the parts together takes stores longer than other requests. */
const COMPLETION_FACTOR = 10

const isMd5 = (etag: string) => /^[0-9a-f]{32}$/.test(etag)

/** The store's ETags are MD5s of what is in there: what it has encrypted with a key of its own has other ones. */
const isPlain = (reply: StoreHttp.StoreReply) =>
  (reply.header("x-amz-server-side-encryption") ?? "AES256") === "AES256"
  && reply.header("x-amz-server-side-encryption-customer-algorithm") === undefined

const md5Of = (bytes: Uint8Array) => createHash("md5").update(bytes).digest()

/** What a multipart upload's ETag is, but for stores that encrypt. */
const etagOf = (parts: ReadonlyArray<Buffer>) => `${md5Of(Buffer.concat(parts)).toString("hex")}-${parts.length}`

const pauseAfter = (failures: number, { retryAfterMs = 0 }: Trouble) =>
  Effect.flatMap(
    Random.next,
    (random) =>
      Effect.sleep(Math.max(retryAfterMs, Math.min(LONGEST_PAUSE_MS, 100 * 2 ** failures) * (0.5 + random / 2)))
  )

const make = Effect.fnUntraced(function*(config: ObjectStoreConfig, keys: StoreHttp.StoreKeys) {
  const store = yield* StoreHttp.make(config, keys)
  const uploads = yield* Uploads
  const { endpoint } = config

  /** Again while it may pass. `before` is the trouble of the try before. */
  const patiently = <A, R>(once: (before: Trouble | undefined) => Effect.Effect<A, Trouble, R>) =>
    Effect.gen(function*() {
      const began = yield* monotonicMs
      let before: Trouble | undefined
      for (let failures = 0;; failures += 1) {
        const done: Result.Result<A, Trouble> = yield* Effect.result(once(before))
        if (Result.isSuccess(done)) return done.success
        before = { ...done.failure, isAmbiguous: done.failure.isAmbiguous || before?.isAmbiguous === true }
        if (!before.isPassing || (yield* monotonicMs) - began > config.patienceMs) return yield* Effect.fail(before)
        yield* pauseAfter(failures, before)
      }
    })

  const telling = (operation: ObjectStoreError["operation"], bucket: string, key?: string) => (what: Trouble) =>
    told(operation, bucket, key, what)

  const page = (bucket: string, prefix: string, token: string | undefined) =>
    patiently(() =>
      Effect.flatMap(
        store.tell({
          method: "GET",
          bucket,
          query: {
            "list-type": "2",
            "encoding-type": "url",
            prefix,
            ...(token === undefined ? {} : { "continuation-token": token })
          }
        }),
        ({ content }) =>
          content.includes("<ListBucketResult")
            ? Effect.succeed(content)
            : Effect.fail(trouble("NotUnderstood", "its answer to a listing is none"))
      )
    )

  const listed = Effect.fnUntraced(function*(bucket: string, prefix: string, token: string | undefined) {
    const xml = yield* page(bucket, prefix, token)
    const isEncoded = textOf(xml, "EncodingType") === "url"
    const objects = each(xml, "Contents").flatMap((inner): ReadonlyArray<StoredObject> => {
      const key = textOf(inner, "Key")
      if (key === undefined) return []
      return [{
        key: isEncoded ? decodedKey(key) : key,
        bytes: Number(textOf(inner, "Size") ?? 0),
        etag: bare(textOf(inner, "ETag") ?? "")
      }]
    })
    const next = textOf(xml, "IsTruncated") === "true" ? textOf(xml, "NextContinuationToken") : undefined
    return [objects, Option.fromUndefinedOr(next)] as const
  })

  /** Reads on from where it broke off, for as long as something comes. */
  const reading = Effect.fnUntraced(function*(bucket: string, key: string) {
    const own = yield* Effect.scope
    let open: { readonly reply: StoreHttp.StoreReply; readonly scope: Scope.Closeable; skip: number } | undefined
    let offset = 0
    let etag: string | undefined
    let total: number | undefined
    let hash: ReturnType<typeof createHash> | undefined
    let since = { offset: -1, ms: 0, failures: 0 }

    const close = Effect.suspend(() => {
      const scope = open?.scope
      open = undefined
      return scope === undefined ? Effect.void : Scope.close(scope, Exit.void)
    })

    const begin = Effect.fnUntraced(function*() {
      const scope = yield* Scope.fork(own)
      const reply = yield* store.ask({
        method: "GET",
        bucket,
        key,
        headers: offset === 0 || etag === undefined ? {} : { range: `bytes=${offset}-`, "if-match": `"${etag}"` }
      }).pipe(
        Scope.provide(scope),
        Effect.onError(() => Scope.close(scope, Exit.void)),
        Effect.mapError((what) =>
          what.code === "PreconditionFailed" || what.code === "Status412"
            ? trouble("Changed", "it was replaced while it was read")
            : what
        )
      )
      const length = reply.header("content-length")
      const etagNow = bare(reply.header("etag") ?? "")
      const isPart = reply.status === 206
      const totalNow = isPart
        ? /^bytes (\d+)-\d+\/(\d+)$/.exec(reply.header("content-range") ?? "")
        : undefined
      if (isPart && Number(totalNow?.[1]) !== offset) {
        return yield* Effect.fail(trouble("NotUnderstood", "it gave another part than the one asked for"))
      }
      const whole = isPart ? Number(totalNow?.[2]) : length === undefined ? undefined : Number(length)
      if (etag === undefined) {
        etag = etagNow
        total = whole
        if (isMd5(etagNow) && isPlain(reply)) hash = createHash("md5")
      } else if (etagNow !== etag || whole !== total) {
        return yield* Effect.fail(trouble("Changed", "it was replaced while it was read"))
      }
      open = { reply, scope, skip: isPart ? 0 : offset }
      return open
    })

    /** A break that may be mended; more of them in one place than patience has are the end. */
    const mend = Effect.fnUntraced(function*(what: Trouble) {
      yield* close
      const now = yield* monotonicMs
      if (since.offset !== offset) since = { offset, ms: now, failures: 0 }
      // Without an ETag nobody knows that it is the same object.
      const isLost = offset > 0 && (etag ?? "") === ""
      if (!what.isPassing || isLost || now - since.ms > config.patienceMs) return yield* Effect.fail(what)
      yield* pauseAfter(since.failures, what)
      since = { ...since, failures: since.failures + 1 }
    })

    const pull: Effect.Effect<
      readonly [Uint8Array, ...Array<Uint8Array>],
      Trouble | Cause.Done
    > = Effect.gen(function*() {
      while (true) {
        const at = open ?? (yield* Effect.result(begin()))
        if ("_tag" in at && Result.isFailure(at)) {
          yield* mend(at.failure)
          continue
        }
        const here = "_tag" in at ? at.success : at
        const got = yield* Effect.result(here.reply.next)
        if (Result.isFailure(got)) {
          yield* mend(got.failure)
          continue
        }
        if (got.success === undefined) {
          if (total !== undefined && offset < total) {
            yield* mend(trouble("Truncated", `it ended at ${offset} of ${total} bytes`, { isPassing: true }))
            continue
          }
          yield* close
          if (hash !== undefined && hash.digest("hex") !== etag) {
            return yield* Effect.fail(trouble("Corrupt", "what it gave does not have the object's MD5"))
          }
          return yield* Cause.done()
        }
        const pieces = got.success.flatMap((piece) => {
          const rest = piece.subarray(Math.min(here.skip, piece.length))
          here.skip -= piece.length - rest.length
          return rest.length === 0 ? [] : [rest]
        })
        for (const piece of pieces) {
          offset += piece.length
          hash?.update(piece)
        }
        if (total !== undefined && offset > total) {
          return yield* Effect.fail(trouble("NotUnderstood", "it gave more bytes than the object has"))
        }
        const [first, ...others] = pieces
        if (first !== undefined) return [first, ...others]
      }
    })
    return Stream.fromPull(Effect.succeed(pull))
  })

  const remove = (bucket: string, key: string) =>
    patiently(() =>
      store.tell({ method: "DELETE", bucket, key }).pipe(
        Effect.asVoid,
        Effect.catchIf(({ code }) => code === "NoSuchKey" || code === "NotFound", () => Effect.void)
      )
    )

  /** What there is, seen from outside. */
  const head = (bucket: string, key: string) =>
    patiently(() =>
      Effect.map(store.tell({ method: "HEAD", bucket, key }), ({ header }) => ({
        bytes: Number(header("content-length")),
        etag: bare(header("etag") ?? "")
      }))
    )

  /** One that is not what was sent must not stay. */
  const spoilt = Effect.fnUntraced(function*(bucket: string, key: string, what: Trouble) {
    yield* Effect.ignore(within("an object that came out wrong", "10 seconds")(remove(bucket, key)))
    return yield* Effect.fail(what)
  })

  const checked = Effect.fnUntraced(function*(bucket: string, key: string, bytes: number, etag: string | undefined) {
    const there = yield* head(bucket, key)
    if (there.bytes !== bytes) {
      return yield* spoilt(bucket, key, trouble("Truncated", `it has ${there.bytes} of ${bytes} bytes`))
    }
    if (etag !== undefined && there.etag !== etag && /^[0-9a-f]{32}-\d+$/.test(there.etag)) {
      return yield* spoilt(bucket, key, trouble("Corrupt", "it has not the ETag of what was sent"))
    }
    return { key, bytes, etag: there.etag }
  })

  const putWhole = Effect.fnUntraced(function*(bucket: string, key: string, part: Part, contentType: string) {
    const { bytes, md5 } = part
    const reply = yield* patiently(() =>
      store.tell({
        method: "PUT",
        bucket,
        key,
        headers: { "content-md5": md5.toString("base64"), "content-type": contentType },
        body: bytes
      })
    )
    const etag = bare(reply.header("etag") ?? "")
    if (!isMd5(etag) || !isPlain(reply)) return yield* checked(bucket, key, bytes.length, undefined)
    return etag === md5.toString("hex")
      ? { key, bytes: bytes.length, etag }
      : yield* spoilt(bucket, key, trouble("Corrupt", "it has not the MD5 of what was sent"))
  })

  /** Of one that is gone already nothing is left either. */
  const aborting = ({ bucket, key, uploadId }: Pick<Upload, "bucket" | "key" | "uploadId">) =>
    store.tell({ method: "DELETE", bucket, key, query: { uploadId } }).pipe(
      Effect.asVoid,
      Effect.catchIf(
        ({ code }) => code === "NoSuchUpload" || code === "NoSuchBucket" || code === "NotFound",
        () => Effect.void
      )
    )

  /** What workers of this host had begun here when they died; what the store does not let go now is for another time. */
  const sweep = Effect.gen(function*() {
    const left = (yield* uploads.left).filter(({ upload }) => upload.endpoint === endpoint)
    yield* Effect.forEach(left, ({ strike, upload }) =>
      Effect.matchEffect(aborting(upload), {
        onSuccess: () =>
          Effect.andThen(strike, Effect.logInfo(`aborted a dead worker's upload of ${upload.bucket}/${upload.key}`)),
        onFailure: ({ reason }) =>
          Effect.logWarning(`a dead worker's upload of ${upload.bucket}/${upload.key} cannot be aborted: ${reason}`)
      }), { discard: true })
  })
  yield* Effect.forkScoped(Effect.repeat(sweep, Schedule.spaced(SWEEP)))

  /** An upload in parts, which is aborted with the scope unless it was completed. */
  const multipart = Effect.fnUntraced(function*(bucket: string, key: string, contentType: string) {
    let isCompleted = false
    const begun = store.tell({
      method: "POST",
      bucket,
      key,
      query: { uploads: "" },
      headers: { "content-type": contentType }
    }).pipe(Effect.flatMap(({ content }) => {
      const uploadId = textOf(content, "UploadId")
      return uploadId === undefined
        ? Effect.fail(trouble("NotUnderstood", "it began an upload without a name"))
        : Effect.map(uploads.note({ endpoint, bucket, key, uploadId }), (strike) => ({ uploadId, strike }))
    }))
    const abort = ({ strike, uploadId }: Effect.Success<typeof begun>) =>
      Effect.suspend(() =>
        isCompleted
          ? strike
          : within("an unfinished upload", "10 seconds")(
            Effect.andThen(patiently(() => aborting({ bucket, key, uploadId })), strike)
          )
      )
    // Once it is asked for, its name is waited for: nobody else could abort it. The pauses between tries end at once.
    const { uploadId } = yield* patiently(() => Effect.acquireRelease(begun, abort))

    const md5s: Array<Buffer> = []
    const etags: Array<string> = []
    let sent = 0

    const send = Effect.fnUntraced(function*({ bytes, md5 }: Part, number: number) {
      const reply = yield* patiently(() =>
        store.tell({
          method: "PUT",
          bucket,
          key,
          query: { partNumber: `${number}`, uploadId },
          headers: { "content-md5": md5.toString("base64") },
          body: bytes
        })
      )
      const etag = bare(reply.header("etag") ?? "")
      if (etag === "") return yield* Effect.fail(trouble("NotUnderstood", `it took part ${number} without an ETag`))
      if (isMd5(etag) && isPlain(reply) && etag !== md5.toString("hex")) {
        return yield* Effect.fail(trouble("Corrupt", `part ${number} has not the MD5 of what was sent`))
      }
      md5s[number - 1] = md5
      etags[number - 1] = etag
      sent += bytes.length
    })

    const complete = Effect.gen(function*() {
      const body = Buffer.from(completion(etags))
      const etag = etagOf(md5s)
      yield* patiently((before) =>
        store.tell({
          method: "POST",
          bucket,
          key,
          query: { uploadId },
          headers: { "content-md5": md5Of(body).toString("base64"), "content-type": "application/xml" },
          body,
          timeoutMs: COMPLETION_FACTOR * config.timeoutMs
        }).pipe(
          // Said with status 200, when it took so long that the head was sent before.
          Effect.flatMap(({ content }) => {
            const said = errorOf(content)
            return said === undefined ? Effect.void : Effect.fail(
              trouble(said.code, `it answered ${said.code}: ${said.message}`, {
                isPassing: said.code === "InternalError" || said.code === "SlowDown",
                isAmbiguous: true
              })
            )
          }),
          // The try before may have done it, unheard.
          Effect.catchIf(
            ({ code }) => before?.isAmbiguous === true && (code === "NoSuchUpload" || code === "NotFound"),
            (what) =>
              Effect.flatMap(
                head(bucket, key),
                (there) => there.etag === etag ? Effect.void : Effect.fail(what)
              )
          )
        )
      )
      isCompleted = true
      return yield* checked(bucket, key, sent, etag)
    })
    return { send, complete }
  })

  const put = <E>(bucket: string, key: string, bytes: Stream.Stream<Uint8Array, E>, contentType: string) =>
    Effect.gen(function*() {
      const gather = makeGather(PART_BYTES)
      const telled = telling("put", bucket, key)
      let upload: Effect.Success<ReturnType<typeof multipart>> | undefined
      const onTheirWay: Array<Fiber.Fiber<void, Trouble>> = []
      let count = 0
      let since = 0

      /** Sends a part. It comes back when there is memory for the next one. */
      const dispatch = Effect.fnUntraced(function*() {
        if (count === MOST_PARTS) {
          return yield* Effect.fail(trouble("TooLarge", `it has more than ${MOST_PARTS} parts`))
        }
        const here = upload ?? (yield* multipart(bucket, key, contentType))
        upload = here
        count += 1
        const part = gather.take()
        onTheirWay.push(
          yield* Effect.forkScoped(
            Effect.andThen(here.send(part, count), Effect.sync(() => gather.giveBack(part))),
            { startImmediately: true }
          )
        )
        const [oldest] = onTheirWay
        if (oldest === undefined || onTheirWay.length < PARTS_HELD) return
        onTheirWay.shift()
        yield* Fiber.join(oldest)
      })

      yield* Stream.runForEachArray(bytes, (pieces) =>
        Effect.gen(function*() {
          for (const piece of pieces) {
            let rest = gather.add(piece)
            while (rest.length > 0) {
              // Not before more has come: what fills one part alone is an object of its own.
              yield* Effect.mapError(dispatch(), telled)
              rest = gather.add(rest)
            }
            // Hashing holds up what is being sent, which a stream that always has more would never let go on.
            since += piece.length
            if (since < BREATH_BYTES) continue
            since = 0
            yield* Effect.yieldNow
          }
        }))
      const last = Effect.gen(function*() {
        if (upload === undefined) return yield* putWhole(bucket, key, gather.take(), contentType)
        if (!gather.isEmpty()) yield* dispatch()
        for (const part of onTheirWay) yield* Fiber.join(part)
        return yield* upload.complete
      })
      return yield* Effect.mapError(last, telled)
    }).pipe(Effect.scoped)

  return ObjectStore.of({
    list: (bucket, prefix) =>
      Stream.paginate(
        undefined as string | undefined,
        (token) => Effect.mapError(listed(bucket, prefix, token), telling("list", bucket))
      ),
    get: (bucket, key) => Stream.mapError(Stream.unwrap(reading(bucket, key)), telling("get", bucket, key)),
    put: (bucket, key, bytes, contentType = "application/octet-stream") => put(bucket, key, bytes, contentType),
    delete: (bucket, key) => Effect.mapError(remove(bucket, key), telling("delete", bucket, key))
  })
})

/** The store that is configured. Nothing is asked of it before a job does, but to abort what a dead worker had begun. */
export const layer = (config: ObjectStoreConfig, keys: StoreHttp.StoreKeys) =>
  Layer.effect(ObjectStore, make(config, keys))
