/** How every error of the control plane is told: once for gRPC, HTTP and the command line. */
import type { ArtefactNotFound } from "../artefacts/Artefacts.ts"
import type { ApiError } from "./JobApi.ts"

/** The caller did not say who it is, or not in a way that is believed. Doors make it; the API never sees such a caller. */
export interface Unauthenticated {
  readonly _tag: "Unauthenticated"
  readonly reason: string
  readonly remedy: string
}

/** A kind of trouble in the words of each door. */
export interface Kind {
  /** The last part of the problem's `type` (RFC 9457). */
  readonly name: string
  readonly title: string
  /** google.rpc.Code. */
  readonly grpc: number
  readonly http: number
  /** Exit code of the command line. */
  readonly exit: number
}

const kind = (name: string, title: string, grpc: number, http: number, exit = 1): Kind => ({
  name,
  title,
  grpc,
  http,
  exit
})

/** Every error there is, by its tag: a new one does not compile until it has its place. */
export const kinds: Readonly<Record<(ApiError | ArtefactNotFound | Unauthenticated)["_tag"], Kind>> = {
  InvalidRequest: kind("invalid-request", "The request is not one", 3, 400),
  InvalidArguments: kind("invalid-arguments", "The function does not take these arguments", 3, 422),
  Unauthenticated: kind("unauthenticated", "Nobody the worker knows", 16, 401),
  Forbidden: kind("forbidden", "Not allowed", 7, 403),
  UnknownJob: kind("unknown-job", "There is no such job", 5, 404),
  ArtefactNotFound: kind("unknown-artefact", "The job left no such file", 5, 404),
  IdTaken: kind("id-taken", "The id belongs to another request", 6, 409),
  NotEnded: kind("not-ended", "The job has not ended", 9, 409),
  Overloaded: kind("overloaded", "The worker takes no more now", 8, 503),
  Unavailable: kind("unavailable", "Not now", 14, 503)
}

/** A defect of ours. */
export const internal: Kind = kind("internal", "A defect of Stoker", 13, 500)

/** An error as all doors tell it. */
export interface Fault {
  readonly kind: Kind
  readonly reason: string
  readonly remedy: string
}

/** For those that have no remedy of their own. */
const usualRemedy = (tag: string): string =>
  tag === "ArtefactNotFound" ? "The job's status names the files it left." : "Try again later."

/** What is told of an error. */
export const faultOf = (error: ApiError | ArtefactNotFound | Unauthenticated): Fault => ({
  kind: kinds[error._tag],
  reason: "reason" in error ? error.reason : error.message,
  remedy: "remedy" in error && error.remedy !== undefined ? error.remedy : usualRemedy(error._tag)
})
