/** Serves the HTTP API over TLS until its scope closes. */
import { NodeHttpServer } from "@effect/platform-node"
import { Effect, Layer, type Stream } from "effect"
import { HttpRouter, HttpServer, type HttpServerRequest } from "effect/http"
import type { Caller } from "../../schemas/Access.ts"
import type { Unauthenticated } from "../api/Fault.ts"
import type { TlsMaterial } from "../api/TlsMaterial.ts"
import { textOf } from "../host/Errno.ts"
import { HostError } from "../host/Host.ts"
import { guard } from "./Guard.ts"
import * as HttpsServer from "./HttpsServer.ts"
import * as RateLimit from "./RateLimit.ts"
import * as Routes from "./Routes.ts"

export interface HttpOptions {
  /** HOST:PORT; port 0 for any that is free. */
  readonly listen: string
  readonly material: TlsMaterial
  readonly renewals: Stream.Stream<TlsMaterial>
  readonly clientCertificate: "required" | "optional"
  readonly identify: (request: HttpServerRequest.HttpServerRequest) => Effect.Effect<Caller, Unauthenticated>
  /** Arguments may hold files. Absent: 8 MiB. */
  readonly maximumBodyBytes?: number
  /** Absent: 1024. */
  readonly maximumConnections?: number
  /** Of one caller. Absent: 100 a second, 200 at once. */
  readonly rateLimit?: RateLimit.RateLimitOptions
}

/** Answers in the making have so long when the server closes; streams are then cut off, and can be resumed. */
const LAST_ANSWERS = "1 second"

const placeOf = (listen: string) => {
  const colon = listen.lastIndexOf(":")
  return { host: listen.slice(0, colon).replaceAll(/[[\]]/g, ""), port: Number(listen.slice(colon + 1)) }
}

/** The API behind its guard, for whatever server. */
export const app = Effect.fnUntraced(function*(
  { identify, maximumBodyBytes = 8 * 1024 * 1024, rateLimit = { perSecond: 100, burst: 200 } }: Pick<
    HttpOptions,
    "identify" | "maximumBodyBytes" | "rateLimit"
  >
) {
  const routes = yield* HttpRouter.toHttpEffect(Routes.layer)
  return guard(routes, { identify, maximumBodyBytes, rateLimit: RateLimit.make(rateLimit) })
})

/** Listens. Gives where, with the port it got. */
export const serve = Effect.fnUntraced(function*(options: HttpOptions) {
  const { clientCertificate, listen, material, maximumConnections = 1024, renewals } = options
  const guarded = yield* app(options)
  const { cutOff, server } = yield* HttpsServer.make({ material, renewals, clientCertificate, maximumConnections })
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
    address: HttpServer.formatAddress(http.address)
  })
  return http.address
}, Effect.provide(NodeHttpServer.layerHttpServices))

/** The same as a layer. */
export const layer = (options: HttpOptions) => Layer.effectDiscard(serve(options))
