/** Errors as answers: each of them is a problem document with what to do now. */
import { HttpServerResponse } from "effect/http"
import { type Problem, problemPrefix, problemType } from "../../schemas/api/Problem.ts"
import { faultOf, internal, type Unauthenticated } from "../api/Fault.ts"
import type { ApiError } from "../api/JobApi.ts"
import type { ArtefactNotFound } from "../artefacts/Artefacts.ts"

/** What is wrong with a request as HTTP, whatever it asked for. */
export interface Refusal {
  readonly _tag: "Refusal"
  readonly status: number
  readonly name: string
  readonly title: string
  readonly detail: string
  readonly remedy: string
  readonly headers?: Readonly<Record<string, string>>
}

/** All that a handler may end with. */
export type HttpFault = ApiError | ArtefactNotFound | Unauthenticated | Refusal

const refusal = (status: number, name: string, title: string) =>
(
  detail: string,
  remedy: string,
  headers?: Readonly<Record<string, string>>
): Refusal => ({ _tag: "Refusal", status, name, title, detail, remedy, ...(headers === undefined ? {} : { headers }) })

export const malformed = refusal(400, "invalid-request", "The request is not one")
export const noRoute = refusal(404, "unknown-path", "There is nothing at this path")
export const replaced = refusal(404, "unknown-run", "There is no such writing of the output")
export const noMethod = refusal(405, "unknown-method", "Not with this method")
export const slowRequest = refusal(408, "slow-request", "The request took too long to come in")
export const tooLarge = refusal(413, "too-large", "The body is too large")
export const notJson = refusal(415, "not-json", "The body is not JSON")
export const outOfRange = refusal(416, "out-of-range", "There are no such bytes")
export const tooMany = refusal(429, "too-many-requests", "Too many requests")
export const largeHeaders = refusal(431, "large-headers", "The headers are too large")

/** What other requests than this one may do: it is worth to try again soon. */
const usualHeaders: Readonly<Record<number, Readonly<Record<string, string>>>> = {
  401: { "www-authenticate": "Bearer realm=\"stoker\"" },
  503: { "retry-after": "2" }
}

/** The document of an error. */
export const problemOf = (fault: HttpFault): Problem => {
  if (fault._tag === "Refusal") {
    const { detail, name, remedy, status, title } = fault
    return { type: problemPrefix + name, title, status, detail, remedy }
  }
  const { kind, reason, remedy } = faultOf(fault)
  return { type: problemPrefix + kind.name, title: kind.title, status: kind.http, detail: reason, remedy }
}

/** A problem as an answer. */
export const answer = (
  problem: Problem,
  headers: Readonly<Record<string, string>> = {}
): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.jsonUnsafe(problem, {
    status: problem.status,
    contentType: problemType,
    headers: { "cache-control": "no-store", ...usualHeaders[problem.status], ...headers }
  })

/** An error as an answer. */
export const refuse = (fault: HttpFault): HttpServerResponse.HttpServerResponse =>
  answer(problemOf(fault), fault._tag === "Refusal" ? fault.headers : undefined)

/** A defect of ours: its id is all that is told, the rest is in the log. */
export const defect = (id: string): Problem => ({
  type: problemPrefix + internal.name,
  title: internal.title,
  status: internal.http,
  detail: "the request met a defect of the worker",
  remedy: "Report it with the worker's log, where it stands beside this id.",
  instance: `urn:uuid:${id}`
})
