/** Serves the HTTP API over TLS until its scope closes. */
import { NodeHttpServer } from "@effect/platform-node"
import { Effect, Layer } from "effect"
import { HttpRouter, HttpServer } from "effect/http"
import type { IdentityField } from "../api/Identity.ts"
import { Tls } from "../api/Tls.ts"
import { Tokens } from "../api/Tokens.ts"
import { textOf } from "../host/Errno.ts"
import { HostError } from "../host/Host.ts"
import { guard, type GuardOptions } from "./Guard.ts"
import * as HttpsServer from "./HttpsServer.ts"
import * as Identify from "./Identify.ts"
import * as RateLimit from "./RateLimit.ts"
import * as Routes from "./Routes.ts"

/** What every request is held to. */
export interface HttpBounds {
  /** Arguments may hold files. Absent: 8 MiB. */
  readonly maximumBodyBytes?: number
  /** In all; half of them for one certificate. Absent: 1024. */
  readonly maximumConnections?: number
  /** Of one caller. Absent: 100 a second, 200 at once. */
  readonly rateLimit?: RateLimit.RateLimitOptions
}

export interface HttpOptions extends HttpBounds {
  /** HOST:PORT; port 0 for any that is free. */
  readonly listen: string
  /** Where a certificate has its caller's name. Absent: the common name. */
  readonly identity?: IdentityField
}

/** Answers in the making have so long when the server closes; streams are then cut off, and can be resumed. */
const LAST_ANSWERS = "1 second"

const placeOf = (listen: string) => {
  const colon = listen.lastIndexOf(":")
  return { host: listen.slice(0, colon).replaceAll(/[[\]]/g, ""), port: Number(listen.slice(colon + 1)) }
}

/** The API behind its guard, for whatever server. */
export const app = Effect.fnUntraced(function*(
  identify: GuardOptions["identify"],
  { maximumBodyBytes = 8 * 1024 * 1024, rateLimit = { perSecond: 100, burst: 200 } }: HttpBounds
) {
  const routes = yield* HttpRouter.toHttpEffect(Routes.layer)
  return guard(routes, { identify, maximumBodyBytes, rateLimit: RateLimit.make(rateLimit) })
})

/** Listens. Gives where, with the port it got. */
export const serve = Effect.fnUntraced(function*(options: HttpOptions) {
  const { identity = "CN", listen, maximumConnections = 1024 } = options
  const tokens = yield* Tokens
  const guarded = yield* app(Identify.make(identity, tokens), options)
  const { cutOff, server } = yield* HttpsServer.make({
    tls: yield* Tls,
    // Who brings a token need not have one.
    clientCertificate: tokens.accepted ? "optional" : "required",
    maximumConnections
  })
  const http = yield* NodeHttpServer.make(() => server, { ...placeOf(listen), gracefulShutdownTimeout: LAST_ANSWERS })
    .pipe(Effect.mapError(({ cause }) =>
      new HostError({
        operation: `listen on ${listen}`,
        reason: textOf(cause),
        remedy: "Choose another address for the HTTP API.",
        cause
      })
    ))
  // After the last answers, before the server waits for its connections.
  yield* Effect.addFinalizer(() => cutOff)
  yield* HttpServer.serveEffect(guarded).pipe(Effect.provideService(HttpServer.HttpServer, http))
  yield* Effect.annotateLogs(Effect.logInfo("the HTTP API is served"), {
    address: HttpServer.formatAddress(http.address).replace(/^http:/, "https:")
  })
  return http.address
}, Effect.provide(NodeHttpServer.layerHttpServices))

/** The same as a layer. Needs `JobApi`, the server's `Tls` and `Tokens`. */
export const layer = (options: HttpOptions) => Layer.effectDiscard(serve(options))
