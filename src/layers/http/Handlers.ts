/** What each endpoint does: reads the request, asks the API as the caller, answers in views. No rules of its own. */
import { Effect, Schema } from "effect"
import { type HttpServerRequest, HttpServerResponse } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import type { Caller } from "../../schemas/Access.ts"
import { FunctionList, JobList, StokerHttpApi } from "../../schemas/api/HttpApi.ts"
import { StartJob, StopJob } from "../../schemas/api/StartJob.ts"
import { JobView } from "../../schemas/JobView.ts"
import { JobApi, type JobRef, type StartRequest } from "../api/JobApi.ts"
import { artefact } from "./Artefact.ts"
import { beginningOf, following, formOf, resumedAt } from "./Follow.ts"
import { identified } from "./Identified.ts"
import { jsonBody } from "./JsonBody.ts"
import { output } from "./Output.ts"
import { type HttpFault, noRoute, refuse } from "./Problems.ts"

type Response = HttpServerResponse.HttpServerResponse

const encodeView = Schema.encodeSync(JobView)
const noStore = { "cache-control": "no-store" }
const view = (job: JobView, status = 200, headers: Readonly<Record<string, string>> = {}): Response =>
  HttpServerResponse.jsonUnsafe(encodeView(job), { status, headers: { ...noStore, ...headers } })

/** As who asks; every error becomes its problem. */
const asked = <R>(f: (caller: Caller) => Effect.Effect<Response, HttpFault, R>): Effect.Effect<Response, never, R> =>
  Effect.flatMap(identified, f).pipe(Effect.catch((fault: HttpFault) => Effect.succeed(refuse(fault))))

const refOf = (id: string, query: { readonly owner?: string | undefined }): JobRef => ({
  id,
  ...(query.owner === undefined ? {} : { owner: query.owner })
})

const requestOf = (
  { args, expiresAtMs, notBeforeMs, priority, retry, ...body }: StartJob,
  traceparent: string | undefined,
  wait: number | undefined
): StartRequest => ({
  ...body,
  args: args ?? {},
  terms: {
    ...(priority === undefined ? {} : { priority }),
    ...(notBeforeMs === undefined ? {} : { notBeforeMs }),
    ...(expiresAtMs === undefined ? {} : { expiresAtMs }),
    ...(retry === undefined ? {} : { retry })
  },
  ...(traceparent === undefined ? {} : { traceparent }),
  ...(wait === undefined ? {} : { waitMs: wait * 1000 })
})

/** Its own page, which says whose it is where that is not the caller. */
const locationOf = ({ id, owner }: JobView, caller: Caller): string =>
  `/v1/jobs/${encodeURIComponent(id)}${owner === caller.name ? "" : `?owner=${encodeURIComponent(owner)}`}`

const start = (
  api: JobApi["Service"],
  request: HttpServerRequest.HttpServerRequest,
  traceparent: string | undefined,
  wait: number | undefined
) =>
  asked(Effect.fnUntraced(function*(caller) {
    const body = yield* jsonBody(request, StartJob)
    // Whether it is a new job is for the status code alone, so that it is asked before and not held against a race.
    const isKnown = body.id !== undefined && (yield* Effect.isSuccess(
      api.status(caller, { id: body.id, owner: body.owner ?? caller.name })
    ))
    const job = yield* api.start(caller, requestOf(body, traceparent, wait))
    return view(job, isKnown ? 200 : 201, { location: locationOf(job, caller) })
  }))

/** All files may be asked for with the slashes of their paths; the typed form escapes them. */
export const artefactOf = (
  api: JobApi["Service"],
  job: JobRef,
  path: string,
  headers: { readonly range?: string | undefined; readonly "if-range"?: string | undefined }
) => asked((caller) => artefact((range) => api.artefact(caller, job, path, range), headers))

/** The endpoints of the API. */
export const layer = HttpApiBuilder.group(
  StokerHttpApi,
  "jobs",
  Effect.fnUntraced(function*(handlers) {
    const api = yield* JobApi
    return handlers
      .handleRaw("start", ({ headers, query, request }) => start(api, request, headers.traceparent, query.wait))
      .handle(
        "list",
        ({ query: { function: name, ...query } }) =>
          asked((caller) =>
            Effect.map(
              api.list(caller, name === undefined ? query : { ...query, function: name }),
              (page) => HttpServerResponse.jsonUnsafe(Schema.encodeSync(JobList)(page), { headers: noStore })
            )
          )
      )
      .handle(
        "status",
        ({ params: { id }, query }) =>
          asked((caller) => Effect.map(api.status(caller, refOf(id, query)), (job) => view(job)))
      )
      .handleRaw("stop", ({ params: { id }, query, request }) =>
        asked(Effect.fnUntraced(function*(caller) {
          const how = yield* jsonBody(request, StopJob, {})
          return view(yield* api.stop(caller, { ...refOf(id, query), ...how }))
        })))
      .handle(
        "delete",
        ({ params: { id }, query }) =>
          asked((caller) => Effect.as(api.remove(caller, refOf(id, query)), HttpServerResponse.empty({ status: 204 })))
      )
      .handle("output", ({ headers, params: { id }, query }) =>
        asked((caller) =>
          output(api, caller, {
            job: refOf(id, query),
            stream: query.stream ?? "all",
            run: query.run,
            waitMs: (query.wait ?? 0) * 1000,
            range: headers.range,
            ifRange: headers["if-range"]
          })
        ))
      .handle("events", ({ headers, params: { id }, query }) =>
        asked(Effect.fnUntraced(function*(caller) {
          const resumed = yield* Effect.fromResult(resumedAt(headers["last-event-id"]))
          const asks = { ...query, newOnly: query.newOnly === "true" }
          const beginning = yield* Effect.fromResult(beginningOf(asks))
          const again = resumed === "ended" ? undefined : resumed
          const from = again === undefined ? beginning : { offset: again.offset }
          const events = yield* api.follow(caller, {
            ...refOf(id, query),
            ...(query.stream === undefined ? {} : { stream: query.stream }),
            ...(from === undefined ? {} : { from }),
            ...(again === undefined ? {} : { run: again.run }),
            wait: query.wait !== "false"
          })
          // What a browser takes as: do not come again.
          if (resumed === "ended") return HttpServerResponse.empty({ status: 204 })
          return following(events, formOf(headers.accept), again?.run ?? "")
        })))
      .handle(
        "artefact",
        ({ headers, params: { id, path }, query }) => artefactOf(api, refOf(id, query), path, headers)
      )
      .handle(
        "functions",
        () =>
          asked((caller) =>
            Effect.map(
              api.functions(caller),
              (functions) => HttpServerResponse.jsonUnsafe(Schema.encodeSync(FunctionList)({ functions }))
            )
          )
      )
      .handle("function", ({ params: { name } }) =>
        asked(Effect.fnUntraced(function*(caller) {
          const found = (yield* api.functions(caller)).find((one) => one.name === name)
          return found === undefined
            ? yield* Effect.fail(noRoute(`there is no function ${name}`, "GET /v1/functions lists them."))
            : HttpServerResponse.jsonUnsafe(found)
        })))
  })
)
