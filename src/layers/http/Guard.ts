/** What every request passes: who asks, how often, how much; and what becomes of everything that goes wrong. */
import { ByteSize, Cause, Effect, Option, Result } from "effect"
import { HttpIncomingMessage, HttpServerError, HttpServerRequest, HttpServerResponse } from "effect/http"
import { HttpApiError } from "effect/http-api"
import { randomUUID } from "node:crypto"
import type { Caller } from "../../schemas/Access.ts"
import { problemType } from "../../schemas/api/Problem.ts"
import { auditStranger } from "../api/Audit.ts"
import type { Unauthenticated } from "../api/Fault.ts"
import { Identified } from "./Identified.ts"
import { fromOf } from "./Identify.ts"
import { notDecoded } from "./JsonBody.ts"
import {
  answer,
  defect,
  type HttpFault,
  malformed,
  noMethod,
  noRoute,
  notJson,
  refuse,
  tooLarge,
  tooMany
} from "./Problems.ts"
import type { RateLimit } from "./RateLimit.ts"
import { methodsOf } from "./Routes.ts"

export interface GuardOptions {
  /** Who asks. Never from what anybody can write into a header, but for a token. */
  readonly identify: (request: HttpServerRequest.HttpServerRequest) => Effect.Effect<Caller, Unauthenticated>
  readonly rateLimit: RateLimit
  readonly maximumBodyBytes: number
}

/** Nothing here is for a browser's page to show. */
const headers = {
  "x-content-type-options": "nosniff",
  "content-security-policy": "default-src 'none'; frame-ancestors 'none'"
}

const withoutRoute = ({ method, url }: HttpServerRequest.HttpServerRequest): HttpFault => {
  const methods = methodsOf(url)
  // A path of the right form that still was none: it is not well escaped.
  return methods.length === 0 || methods.includes(method)
    ? noRoute(`there is nothing at ${url.slice(0, 200)}`, "GET /openapi.json says what there is.")
    : noMethod(`there is no ${method} here`, `Use ${methods.join(" or ")}.`, { allow: methods.join(", ") })
}

/** What is the caller's doing; nothing if it is a defect of ours. */
const faultOf = (
  cause: Cause.Cause<unknown>,
  request: HttpServerRequest.HttpServerRequest
): HttpFault | undefined => {
  for (const reason of cause.reasons) {
    const error = reason._tag === "Fail" ? reason.error : reason._tag === "Die" ? reason.defect : undefined
    if (HttpApiError.HttpApiSchemaError.is(error) && error.kind !== "Body" && error.kind !== "ResponseHeaders") {
      return notDecoded(`the request's ${error.kind.toLowerCase()}`, error.cause)
    }
    if (!HttpServerError.isHttpServerError(error)) continue
    if (error.reason._tag === "RouteNotFound") return withoutRoute(request)
    if (error.reason._tag === "RequestParseError") {
      return error.reason.reason === "BodyTooLarge"
        ? tooLarge("the body is larger than the worker takes", "Send less.")
        : malformed("the request could not be read", "Send it again.")
    }
  }
  return undefined
}

/** What went wrong becomes its problem. Who went away hears nothing. */
const afterwards = (request: HttpServerRequest.HttpServerRequest) => (cause: Cause.Cause<unknown>) => {
  if (Cause.hasInterruptsOnly(cause)) return Effect.failCause(cause as Cause.Cause<never>)
  const fault = faultOf(cause, request)
  if (fault !== undefined) return Effect.succeed(refuse(fault))
  const id = randomUUID()
  return Effect.logError("a request ended in a defect", cause).pipe(
    Effect.annotateLogs({ defect: id, method: request.method, path: request.url.split("?")[0] }),
    Effect.as(answer(defect(id)))
  )
}

/** Errors that the library answers by itself get a document, too. */
const documented = (response: HttpServerResponse.HttpServerResponse): HttpServerResponse.HttpServerResponse => {
  if (response.status < 400 || response.headers["content-type"] === problemType) return response
  switch (response.status) {
    case 413:
      return refuse(tooLarge("the body is larger than the worker takes", "Send less."))
    case 415:
      return refuse(notJson("the content type is not JSON", "Send content-type: application/json."))
    default:
      return refuse(malformed("the request could not be read", "GET /openapi.json says what is taken here."))
  }
}

/** A certificate's or a token's name; else where it comes from. */
const keyOf = (identity: Result.Result<Caller, Unauthenticated>, request: HttpServerRequest.HttpServerRequest) =>
  Result.isSuccess(identity)
    ? `caller ${identity.success.name}`
    : `address ${Option.getOrElse(request.remoteAddress, () => "unknown")}`

/** Guards what answers requests. */
export const guard = <R>(
  app: Effect.Effect<HttpServerResponse.HttpServerResponse, unknown, R>,
  { identify, maximumBodyBytes, rateLimit }: GuardOptions
): Effect.Effect<HttpServerResponse.HttpServerResponse, never, R | HttpServerRequest.HttpServerRequest> =>
  Effect.gen(function*() {
    const request = yield* HttpServerRequest.HttpServerRequest
    const identity = yield* Effect.result(identify(request))
    const seconds = yield* rateLimit.take(keyOf(identity, request))
    if (seconds > 0) {
      return refuse(tooMany("more requests than this caller may send", `Wait ${seconds} s.`, {
        "retry-after": String(seconds)
      }))
    }
    if (Result.isFailure(identity)) yield* auditStranger(identity.failure, fromOf(request))
    if (Number(request.headers["content-length"] ?? 0) > maximumBodyBytes) {
      return refuse(
        tooLarge(`the body is larger than ${maximumBodyBytes} bytes`, "Send less.", { connection: "close" })
      )
    }
    return yield* app.pipe(
      Effect.provideService(Identified, identity),
      Effect.provideService(HttpIncomingMessage.MaxBodySize, ByteSize.bytes(maximumBodyBytes)),
      Effect.catchCause(afterwards(request))
    )
  }).pipe(Effect.map((response) => HttpServerResponse.setHeaders(documented(response), headers)))
