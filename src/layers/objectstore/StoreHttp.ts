/**
 * One signed request to a store, over plain node:http: a body that waits for the store's word before it is sent, bytes read
 * no faster than they are taken, an end to silence, and nothing left of a request that is broken off.
 */
import { Effect, Exit, Redacted, type Scope } from "effect"
import * as http from "node:http"
import * as https from "node:https"
import type { ObjectStoreConfig } from "../../schemas/ObjectStoreConfig.ts"
import { monotonicMs, nowMs } from "../Now.ts"
import { encodedKey, queryText, signed } from "./SigV4.ts"
import { broken, refused, type Trouble, trouble } from "./StoreTrouble.ts"
import { errorOf } from "./StoreXml.ts"

export interface StoreKeys {
  readonly accessKey: Redacted.Redacted<string>
  readonly secretKey: Redacted.Redacted<string>
}

export interface StoreRequest {
  readonly method: "GET" | "PUT" | "POST" | "DELETE" | "HEAD"
  readonly bucket: string
  readonly key?: string
  readonly query?: Readonly<Record<string, string>>
  /** In lower case. */
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: Uint8Array
  /** How long it may be silent. Absent: as configured. */
  readonly timeoutMs?: number
}

export interface StoreReply {
  readonly status: number
  readonly header: (name: string) => string | undefined
  /** What has come since the last one, at least a byte; `undefined`: its end. Not asked while it waits. */
  readonly next: Effect.Effect<readonly [Uint8Array, ...Array<Uint8Array>] | undefined, Trouble>
}

/** Slower than this for long is as good as not at all. Bytes a second. */
const SLOWEST = 16 * 1024

/** A body of so many bytes is worth waiting for the store's word that it wants it. */
const WORTH_ASKING = 64 * 1024
/** A store that does not know the question gets the body after this. Milliseconds. */
const WORD_MS = 1000

/** The most of an answer that is no object. */
const MOST_TEXT = 8 * 1024 * 1024

/** Of a socket; what the kernel has beside it is its own affair. */
const HIGH_WATER = 256 * 1024

const single = (value: string | ReadonlyArray<string> | undefined) => typeof value === "string" ? value : value?.[0]

const silent = (ms: number) =>
  trouble("TimedOut", `it was silent for ${Math.round(ms / 1000)} s`, { isPassing: true, isAmbiguous: true })

const slow = trouble("TooSlow", `it moves less than ${SLOWEST / 1024} KiB a second`)

const readerOf = (response: http.IncomingMessage, timeoutMs: number): StoreReply["next"] => {
  let waitedMs = 0
  let heard = 0
  let failure: Error | undefined
  // Also between two looks: an error nobody listens to ends the process.
  response.on("error", (error) => failure = error)

  const look = (): Exit.Exit<readonly [Uint8Array, ...Array<Uint8Array>] | undefined, Trouble> | undefined => {
    const pieces: Array<Uint8Array> = []
    for (let piece: unknown = response.read(); piece instanceof Uint8Array; piece = response.read()) {
      heard += piece.length
      pieces.push(piece)
    }
    const [first, ...others] = pieces
    if (first !== undefined) return Exit.succeed([first, ...others])
    if (response.readableEnded) return Exit.succeed(undefined)
    if (failure !== undefined) return Exit.fail(broken(failure))
    return response.destroyed ? Exit.fail(broken(new Error("the connection was closed"))) : undefined
  }

  const wait = Effect.callback<readonly [Uint8Array, ...Array<Uint8Array>] | undefined, Trouble>((resume) => {
    const events = ["readable", "end", "error", "close"] as const
    // Plain, because there is one for each piece of an object.
    const timer = setTimeout(() => {
      leave()
      resume(Effect.fail(silent(timeoutMs)))
    }, timeoutMs)
    const leave = () => {
      clearTimeout(timer)
      for (const name of events) response.off(name, heed)
    }
    const heed = () => {
      const seen = look()
      if (seen === undefined) return
      leave()
      resume(seen)
    }
    for (const name of events) response.on(name, heed)
    heed()
    return Effect.sync(leave)
  })

  return Effect.gen(function*() {
    const there = look()
    if (there !== undefined) return yield* there
    const before = yield* monotonicMs
    const got = yield* wait
    waitedMs += (yield* monotonicMs) - before
    return waitedMs > timeoutMs + heard / SLOWEST * 1000 ? yield* Effect.fail(slow) : got
  })
}

/** What speaks to one store. */
export const make = Effect.fnUntraced(function*(config: ObjectStoreConfig, keys: StoreKeys) {
  const url = new URL(config.endpoint)
  const isSecure = url.protocol === "https:"
  const options = { keepAlive: true, maxSockets: 128, maxFreeSockets: 8, highWaterMark: HIGH_WATER }
  const agent = isSecure ? new https.Agent(options) : new http.Agent(options)
  yield* Effect.addFinalizer(() => Effect.sync(() => agent.destroy()))
  const credentials = {
    accessKey: Redacted.value(keys.accessKey),
    secretKey: Redacted.value(keys.secretKey),
    region: config.region
  }

  const place = (bucket: string, key: string) =>
    config.pathStyle
      ? { host: url.host, hostname: url.hostname, path: `/${bucket}${key === "" ? "" : `/${encodedKey(key)}`}` }
      : { host: `${bucket}.${url.host}`, hostname: `${bucket}.${url.hostname}`, path: `/${encodedKey(key)}` }

  const send = (
    { body, method, timeoutMs = config.timeoutMs }: StoreRequest,
    hostname: string,
    path: string,
    headers: Readonly<Record<string, string>>
  ) =>
    Effect.callback<http.IncomingMessage, Trouble>((resume) => {
      const isAsked = body !== undefined && body.length >= WORTH_ASKING
      const request = (isSecure ? https : http).request({
        agent,
        method,
        hostname: hostname.replaceAll(/^\[|\]$/g, ""),
        ...(url.port === "" ? {} : { port: url.port }),
        path,
        headers: {
          ...headers,
          ...(body === undefined && method !== "PUT" && method !== "POST"
            ? {}
            : { "content-length": `${body?.length ?? 0}` }),
          ...(isAsked ? { expect: "100-continue" } : {})
        },
        timeout: timeoutMs
      })
      let word: NodeJS.Timeout | undefined
      const say = () => {
        clearTimeout(word)
        request.off("continue", say)
        request.end(body)
      }
      const fail = (what: Trouble) => {
        clearTimeout(word)
        request.destroy()
        resume(Effect.fail(what))
      }
      request.on("error", (error) => fail(broken(error)))
      request.on("timeout", () => fail(silent(timeoutMs)))
      request.on("response", (response) => {
        clearTimeout(word)
        request.setTimeout(0)
        // Its body was never sent, or not all of it: the connection is of no more use.
        if (!request.writableFinished) response.once("end", () => request.destroy())
        resume(Effect.succeed(response))
      })
      if (isAsked) {
        request.on("continue", say)
        word = setTimeout(say, WORD_MS)
        request.flushHeaders()
      } else request.end(body)
      return Effect.sync(() => {
        clearTimeout(word)
        request.destroy()
      })
    }).pipe(
      Effect.timeoutOrElse({
        duration: timeoutMs + WORD_MS + (body?.length ?? 0) / SLOWEST * 1000,
        orElse: () => Effect.fail(slow)
      })
    )

  const text = Effect.fnUntraced(function*({ next }: StoreReply) {
    const pieces: Array<Uint8Array> = []
    let length = 0
    for (let got = yield* next; got !== undefined; got = yield* next) {
      for (const piece of got) {
        pieces.push(piece)
        length += piece.length
      }
      if (length > MOST_TEXT) return yield* Effect.fail(trouble("NotUnderstood", "its answer is without end"))
    }
    return Buffer.concat(pieces).toString()
  })

  /** The reply to a request that was taken; whatever it is, its connection ends with the scope. */
  const ask = Effect.fnUntraced(function*(
    request: StoreRequest
  ): Effect.fn.Return<StoreReply, Trouble, Scope.Scope> {
    const { bucket, headers = {}, key = "", method, query = {} } = request
    const { host, hostname, path } = place(bucket, key)
    const { range, "if-match": ifMatch, "content-type": contentType, ...others } = headers
    const own = { ...others, host }
    const authorized = signed(credentials, { method, path, query, headers: own }, yield* nowMs)
    const words = queryText(query)
    const response = yield* Effect.acquireRelease(
      send(request, hostname, words === "" ? path : `${path}?${words}`, {
        ...authorized,
        ...(range === undefined ? {} : { range }),
        ...(ifMatch === undefined ? {} : { "if-match": ifMatch }),
        ...(contentType === undefined ? {} : { "content-type": contentType })
      }),
      (response) => Effect.sync(() => response.readableEnded || response.destroy()),
      { interruptible: true }
    )
    const status = response.statusCode ?? 0
    const reply: StoreReply = {
      status,
      header: (name) => single(response.headers[name]),
      next: readerOf(response, request.timeoutMs ?? config.timeoutMs)
    }
    if (status >= 200 && status < 300) return reply
    const said = method === "HEAD" ? "" : yield* text(reply)
    return yield* Effect.fail(refused(status, errorOf(said), reply.header("retry-after")))
  })

  return {
    ask,
    /** A request whose answer is small: the answer, and its headers. */
    tell: (request: StoreRequest) =>
      Effect.scoped(
        Effect.flatMap(ask(request), (reply) => Effect.map(text(reply), (content) => ({ ...reply, content })))
      )
  }
})

export type StoreHttp = Effect.Success<ReturnType<typeof make>>
