/** Bodies of requests: JSON of a bounded size and depth, checked by a Schema. */
import { Effect, Schema } from "effect"
import type { HttpServerError, HttpServerRequest } from "effect/http"
import { isTooDeep, MOST_DEPTH } from "../api/JsonDepth.ts"
import { malformed, notJson, type Refusal, tooLarge } from "./Problems.ts"

const isJson = (type: string | undefined): boolean => /^application\/(?:[\w.+-]+\+)?json\s*(?:;|$)/i.test(type ?? "")

const oneLine = (message: string) => message.replaceAll(/\s+/g, " ").slice(0, 1000)

/** What a Schema says of what it did not take. */
export const notDecoded = (what: string, error: Schema.SchemaError): Refusal =>
  malformed(`${what}: ${oneLine(error.message)}`, "GET /openapi.json says what is taken here.")

const isTooLarge = (error: HttpServerError.HttpServerError) =>
  error.reason._tag === "RequestParseError" && error.reason.reason === "BodyTooLarge"

const textOf = (request: HttpServerRequest.HttpServerRequest): Effect.Effect<string, Refusal> =>
  request.arrayBuffer.pipe(
    Effect.mapError((error) =>
      isTooLarge(error)
        ? tooLarge("the body is larger than the worker takes", "Send less, or ask for a higher limit.")
        : malformed("the body did not come in whole", "Send it again.")
    ),
    Effect.flatMap((bytes) =>
      Effect.try({
        try: () => new TextDecoder("utf-8", { fatal: true }).decode(bytes),
        catch: () => malformed("the body is not UTF-8", "Send JSON as UTF-8.")
      })
    )
  )

/** Reads a body that has to be there, or, with `absent`, need not be. */
export const jsonBody = Effect.fnUntraced(function*<A>(
  request: HttpServerRequest.HttpServerRequest,
  schema: Schema.ConstraintDecoder<A>,
  absent?: A
): Effect.fn.Return<A, Refusal> {
  const text = yield* textOf(request)
  if (text === "" && absent !== undefined) return absent
  if (!isJson(request.headers["content-type"])) {
    return yield* Effect.fail(notJson("the content type is not JSON", "Send content-type: application/json."))
  }
  if (isTooDeep(text)) {
    return yield* Effect.fail(malformed(`the body is nested deeper than ${MOST_DEPTH} levels`, "Send flatter JSON."))
  }
  const json = yield* Effect.try({
    try: (): unknown => JSON.parse(text),
    catch: (cause) => malformed(`the body is not JSON: ${oneLine(String(cause))}`, "Send one JSON object.")
  })
  return yield* Schema.decodeUnknownEffect(schema, { errors: "all", onExcessProperty: "error" })(json).pipe(
    Effect.mapError((error) => notDecoded("the body", error))
  )
})
