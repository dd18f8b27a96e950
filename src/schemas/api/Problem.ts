/** Errors as HTTP tells them: problem details (RFC 9457), with what to do about it. */
import { Schema } from "effect"
import { HttpApiSchema } from "effect/http-api"

export const problemType = "application/problem+json"

/** `type` is this and the kind's name. */
export const problemPrefix = "urn:stoker:problem:"

const fields = {
  /** `urn:stoker:problem:NAME`, by which programs tell them apart. */
  type: Schema.String,
  title: Schema.String,
  /** What is wrong with this request. */
  detail: Schema.String,
  /** What to do now. */
  remedy: Schema.String,
  /** `urn:uuid:…`: the same id stands beside the defect in the worker's log. */
  instance: Schema.optionalKey(Schema.String)
}

/** Any of them. */
export const Problem = Schema.Struct({ ...fields, status: Schema.Int }).annotate({ identifier: "Problem" })
export type Problem = typeof Problem.Type

/** One of a certain status, as an endpoint's error. */
const problem = <const Status extends number>(status: Status, title: string) =>
  Schema.Struct({ ...fields, status: Schema.Literal(status) })
    .annotate({ identifier: `Problem${status}`, description: title })
    .pipe(HttpApiSchema.asJson({ contentType: problemType }), HttpApiSchema.status(status))

/** What any request may be answered with. */
export const usualProblems = [
  problem(400, "The request is not one"),
  problem(401, "Nobody the worker knows"),
  problem(403, "Not allowed"),
  problem(429, "Too many requests; Retry-After says when"),
  problem(500, "A defect of Stoker; instance is its id in the log"),
  problem(503, "Not now")
] as const

export const notFound = problem(404, "There is no such thing, or it is somebody else's")
export const conflict = problem(409, "Not in the state it is in")
export const tooLarge = problem(413, "The body is larger than the worker takes")
export const notJson = problem(415, "The body is not JSON")
export const outOfRange = problem(416, "There are no such bytes")
export const wrongArguments = problem(422, "The function does not take these arguments")
