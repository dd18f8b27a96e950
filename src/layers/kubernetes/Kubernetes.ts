/** What is asked of Kubernetes: Jobs and their pods in one namespace of one cluster, their output, and our own rights. */
import type { V1Job } from "@kubernetes/client-node"
import { Context, type Effect, Schema, type Scope, type Stream } from "effect"
import type { ClusterSetup } from "../../schemas/SandboxClass.ts"
import type { Job, Pod } from "./Objects.ts"

/** What went wrong, as far as it decides what is done about it. */
export const Trouble = Schema.Literals([
  /** No answer: the network, TLS, the API server itself. */
  "unreachable",
  /** It does not know us. */
  "unauthorized",
  /** It knows us, and we may not. */
  "forbidden",
  "absent",
  /** It exists already, or changed meanwhile. */
  "conflict",
  /** It will never take that. */
  "invalid",
  /** What was asked for is older than what it remembers. */
  "expired",
  /** Too many requests, or a fault of its own. */
  "busy",
  /** Our own configuration cannot be used. */
  "configuration"
])
export type Trouble = typeof Trouble.Type

/** The API refused, or could not be reached: what was asked, why, and what to do. */
export class KubernetesError extends Schema.TaggedError<KubernetesError>()("KubernetesError", {
  trouble: Trouble,
  /** `create jobs in namespace x`. */
  operation: Schema.String,
  /** HTTP's, where there was an answer. */
  code: Schema.optionalKey(Schema.Int),
  reason: Schema.String,
  remedy: Schema.String
}) {
  override get message() {
    return `cannot ${this.operation}: ${this.reason}. ${this.remedy}`
  }
}

/** It may go better in a moment. Who is not known may have a token that was just replaced. */
export const isPassing = ({ trouble }: KubernetesError): boolean =>
  trouble === "unreachable" || trouble === "busy" || trouble === "unauthorized"

/** One right, as RBAC has it. */
export interface Right {
  readonly verb: string
  readonly group: string
  readonly resource: string
}

/** All that the executor does, and so all the rights it needs in its namespace. */
export const rights: ReadonlyArray<Right> = [
  ...["create", "get", "list", "watch", "patch", "delete"].map((verb) => ({ verb, group: "batch", resource: "jobs" })),
  ...["list", "watch", "delete"].map((verb) => ({ verb, group: "", resource: "pods" })),
  { verb: "get", group: "", resource: "pods/log" }
]

/** How a Job's pods go when it is deleted: it waits for them, or not. */
export type Propagation = "Foreground" | "Background"

/** What is known of a Job and its pods. What was deleted stays as it was seen last. */
export interface Seen {
  readonly job: Job
  /** It is not there any more. */
  readonly isJobGone: boolean
  readonly pods: ReadonlyArray<{ readonly pod: Pod; readonly isGone: boolean }>
}

/** Follows one Job. */
export interface Tracking {
  readonly seen: Effect.Effect<Seen>
  /** Waits until something has changed since it was last waited for. Changes meanwhile become one. */
  readonly changed: Effect.Effect<void>
  /** Asks the API server itself, for what the watches may not have told yet. */
  readonly refresh: Effect.Effect<void, KubernetesError>
}

/** Where a log is read from. */
export interface LogRequest {
  readonly pod: string
  readonly container: string
  readonly follow: boolean
  /** RFC 3339; the API knows whole seconds only. Absent: from its beginning. */
  readonly since?: string
}

/** One namespace of one cluster. */
export interface Cluster {
  readonly namespace: string
  /** The API server's address. */
  readonly server: string
  /** Whose rights we use, for people. */
  readonly account: string
  /** What it says of its version: the least that says it is there. */
  readonly version: Effect.Effect<string, KubernetesError>
  readonly createJob: (job: V1Job) => Effect.Effect<Job, KubernetesError>
  /** `undefined`: there is none. */
  readonly getJob: (name: string) => Effect.Effect<Job | undefined, KubernetesError>
  /** All with these labels (`a=b,c=d`), as the API server has them now. */
  readonly listJobs: (labels: string) => Effect.Effect<ReadonlyArray<Job>, KubernetesError>
  /** A JSON merge patch. */
  readonly patchJob: (name: string, patch: object) => Effect.Effect<void, KubernetesError>
  /** Of that uid; whether there was one. */
  readonly deleteJob: (name: string, uid: string, how: Propagation) => Effect.Effect<boolean, KubernetesError>
  /** Between SIGTERM and SIGKILL: seconds, at least 1, for at 0 nobody would wait for its end. */
  readonly deletePod: (name: string, uid: string, graceSeconds: number) => Effect.Effect<boolean, KubernetesError>
  /** Its bytes with a time before each line, until its end or that of the connection, whichever: nobody can tell. */
  readonly log: (request: LogRequest) => Stream.Stream<Uint8Array, KubernetesError>
  readonly may: (right: Right) => Effect.Effect<boolean, KubernetesError>
  /** Follows a Job by one watch of each kind for all of them; begins with what is given. */
  readonly track: (job: Job) => Effect.Effect<Tracking, never, Scope.Scope>
}

/** Clusters by their setup. Opening one reads its configuration and reaches for nothing. */
export class Kubernetes extends Context.Service<Kubernetes, {
  readonly cluster: (setup: ClusterSetup) => Effect.Effect<Cluster, KubernetesError>
}>()("stoker/layers/kubernetes/Kubernetes") {}
