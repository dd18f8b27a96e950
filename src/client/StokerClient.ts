/**
 * A worker's control plane as a program asks it: start, stop, status, list, output, files, functions, delete. Who asks is
 * said by the certificate or token of the connection. The same over gRPC and HTTP.
 */
import { Context, type Effect, Schema, type Stream } from "effect"
import { internal, type Kind, kinds } from "../layers/api/Fault.ts"
import type {
  FollowEvent,
  FollowRequest,
  JobPage,
  JobRef,
  ListRequest,
  ReadRequest,
  StartRequest
} from "../layers/api/JobApi.ts"
import type { ArtefactRange, ArtefactSlice } from "../layers/artefacts/Artefacts.ts"
import type { LogSlice } from "../layers/log/Log.ts"
import type { FunctionView, JobView } from "../schemas/JobView.ts"

/** Every kind of trouble that a worker tells of, by its name. */
const byName: ReadonlyMap<string, Kind> = new Map(
  [...Object.values(kinds), internal].map((kind) => [kind.name, kind])
)

/** The kind of that name; what a newer worker has and this client does not know is `internal`. */
export const kindNamed = (name: string): Kind => byName.get(name) ?? internal

/** The worker was asked, and this is why it did not do it. */
export class ClientError extends Schema.TaggedError<ClientError>()("ClientError", {
  /** As `kinds` in `Fault.ts` names them: `unknown-job`, `forbidden`, `invalid-arguments` … */
  kind: Schema.String,
  reason: Schema.String,
  remedy: Schema.String
}) {
  override get message() {
    return this.remedy === "" ? this.reason : `${this.reason}. ${this.remedy}`
  }
}

/** Why there was no answer. */
export const ConnectionProblem = Schema.Literals([
  /** Nobody listens there, the name is unknown, or the network does not lead there. */
  "unreachable",
  /** It was there and went away, or did not answer in time. */
  "lost",
  /** The server's certificate is not believed: another CA, another name, expired. */
  "server-certificate",
  /** The server does not take ours: another CA, expired, none. */
  "client-certificate",
  /** Another version of TLS, or none at all. */
  "tls",
  /** CA, certificate, key or token of ours cannot be used. */
  "credentials",
  /** Something answers that does not speak this protocol. */
  "protocol"
])
export type ConnectionProblem = typeof ConnectionProblem.Type

/** The worker could not be asked, or its answer did not come. */
export class ConnectionError extends Schema.TaggedError<ConnectionError>()("ConnectionError", {
  problem: ConnectionProblem,
  /** Whom we wanted to speak to. */
  server: Schema.String,
  reason: Schema.String,
  remedy: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    return `${this.server}: ${this.reason}. ${this.remedy}`
  }
}

/** What can come of any question. */
export type ClientFailure = ClientError | ConnectionError

/** A part of the output. How much more there is, the wire does not say. */
export type OutputSlice = Omit<LogSlice, "available">

/** What to follow, and who hears of disconnects. */
export interface ClientFollowRequest extends FollowRequest {
  /** The connection was lost, and is made again: why, and how often that happened since the last event. */
  readonly onResume?: (failure: ClientFailure, attempt: number) => Effect.Effect<void>
}

/** A worker's control plane. A question that changes nothing, or whose repeat changes nothing, may be asked again. */
export class StokerClient extends Context.Service<StokerClient, {
  /** The job is durable when it comes back. With an `id` of the caller's own it can be asked again after a disconnect. */
  readonly start: (request: StartRequest) => Effect.Effect<JobView, ClientFailure>
  /** Comes back when the job has ended. `graceMs`: between TERM and KILL; absent: 2 s. */
  readonly stop: (
    job: JobRef & { readonly graceMs?: number; readonly reason?: string }
  ) => Effect.Effect<JobView, ClientFailure>
  readonly status: (job: JobRef) => Effect.Effect<JobView, ClientFailure>
  readonly list: (request?: ListRequest) => Effect.Effect<JobPage, ClientFailure>
  readonly read: (request: ReadRequest) => Effect.Effect<OutputSlice, ClientFailure>
  /**
   * A job's output, up to its end. Goes on by itself after a disconnect where it was: every byte comes, once. Fails when
   * nothing comes for as long as ten tries take (about a minute).
   */
  readonly follow: (request: ClientFollowRequest) => Stream.Stream<FollowEvent, ClientFailure>
  /** Bytes of a file that an ended job left. */
  readonly artefact: (job: JobRef, path: string, range: ArtefactRange) => Effect.Effect<ArtefactSlice, ClientFailure>
  readonly functions: Effect.Effect<ReadonlyArray<FunctionView>, ClientFailure>
  /** Row, output and files of a job that has ended. */
  readonly remove: (job: JobRef) => Effect.Effect<void, ClientFailure>
}>()("stoker/client/StokerClient") {}
