/** All that is served: the API's endpoints, its document, and files by paths with slashes. */
import { Effect, Layer, Result } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { HttpApi, HttpApiBuilder, OpenApi } from "effect/http-api"
import { StokerHttpApi } from "../../schemas/api/HttpApi.ts"
import { JobApi } from "../api/JobApi.ts"
import * as Handlers from "./Handlers.ts"
import { malformed, refuse } from "./Problems.ts"

/** Where the OpenAPI document is. */
export const documentPath = "/openapi.json"

const files = HttpRouter.use(Effect.fnUntraced(function*(router) {
  const api = yield* JobApi
  yield* router.add(
    "GET",
    "/v1/jobs/:id/artefacts/*",
    Effect.gen(function*() {
      const { headers } = yield* HttpServerRequest.HttpServerRequest
      const params = yield* HttpRouter.params
      const { owner } = yield* HttpServerRequest.ParsedSearchParams
      if (Array.isArray(owner)) return refuse(malformed("owner is said twice", "Send it once."))
      const job = { id: params["id"] ?? "", ...(owner === undefined ? {} : { owner }) }
      return yield* Handlers.artefactOf(api, job, params["*"] ?? "", {
        range: headers["range"],
        "if-range": headers["if-range"]
      })
    })
  )
}))

const document = HttpRouter.add(
  "GET",
  documentPath,
  Effect.sync(() => HttpServerResponse.jsonUnsafe(OpenApi.fromApi(StokerHttpApi)))
)

export const layer = Layer.mergeAll(
  HttpApiBuilder.layer(StokerHttpApi).pipe(Layer.provide(Handlers.layer)),
  files,
  document
)

const patternOf = (path: string) =>
  new RegExp(`^${path.replace(/:path$/, ".+").replaceAll(/:\w+/g, "[^/]+").replaceAll(".json", "\\.json")}/?$`)

const known: ReadonlyArray<{ readonly pattern: RegExp; readonly methods: ReadonlyArray<string> }> = (() => {
  const byPath = new Map<string, Array<string>>([[documentPath, ["GET"]]])
  HttpApi.reflect(StokerHttpApi, {
    onGroup: () => undefined,
    onEndpoint: ({ endpoint: { method, path } }) => {
      byPath.set(path, [...byPath.get(path) ?? [], method])
    }
  })
  return Array.from(byPath, ([path, methods]) => ({
    pattern: patternOf(path),
    methods: methods.includes("GET") ? [...methods, "HEAD"] : methods
  }))
})()

/** Methods that this path is there for; none if there is no such path. */
export const methodsOf = (url: string): ReadonlyArray<string> => {
  const path = Result.getOrElse(Result.try(() => new URL(url, "https://localhost").pathname), () => "")
  return known.find(({ pattern }) => pattern.test(path))?.methods ?? []
}
