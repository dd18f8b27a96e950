/** Carries one job from start to outcome. One contract for sandboxes here and for clusters that own their runs. */
import { Context, type Effect, type Scope, type Stream } from "effect"
import type { Job } from "../../schemas/Job.ts"
import type { Outcome, StreamName } from "../../schemas/Outcome.ts"
import type { PhaseName, Program, WorkPath } from "../../schemas/Program.ts"
import type { SandboxClass } from "../../schemas/SandboxClass.ts"
import type { Observation, PhaseUsage, Usage } from "../../schemas/Usage.ts"

/** What is to be run: the job, what its function made of it, and where. */
export interface Assignment {
  readonly job: Job
  readonly attempt: number
  /** The first attempt of this try: what earlier ones came to may have been told already. Absent: 1. */
  readonly firstAttempt?: number
  readonly program: Program
  readonly class: SandboxClass
  /** Most bytes of all its artefacts together. Absent: as the standard configuration has it. */
  readonly artefactBytes?: number
}

/** What happens in a run, in order. */
export type RunEvent =
  /** A sandbox is ready; how long that took. */
  | { readonly _tag: "Ready"; readonly place: string; readonly provisionMicros: number }
  | { readonly _tag: "PhaseStarted"; readonly phase: PhaseName }
  /** Bytes in order of arrival. The array is not reused by the sender. */
  | { readonly _tag: "Output"; readonly stream: StreamName; readonly bytes: Uint8Array }
  | { readonly _tag: "PhaseEnded"; readonly phase: PhaseName; readonly usage: PhaseUsage }
  /** A file that was asked for, after the last phase. The array is not reused by the sender. */
  | { readonly _tag: "Artefact"; readonly path: WorkPath; readonly content: Uint8Array }
  /** One that does not come because it has gone where the job wants it. */
  | {
    readonly _tag: "ArtefactStored"
    readonly path: WorkPath
    readonly bucket: string
    readonly key: string
    readonly bytes: number
  }
  /** Why a file that was asked for does not come. */
  | { readonly _tag: "ArtefactMissing"; readonly path: WorkPath; readonly reason: string }
  | { readonly _tag: "Finished"; readonly outcome: Outcome; readonly usage: Usage }

/** Who wants an end, and how long it may take. Milliseconds. */
export interface StopRequest {
  readonly reason: string
  /** Between SIGTERM and SIGKILL. */
  readonly graceMs: number
}

/** A run under way. Whatever goes wrong inside becomes an outcome: the stream fails never and ends with `Finished`. */
export interface Run {
  readonly events: Stream.Stream<RunEvent>
  /** TERM, then KILL after the grace. Returns at once; the outcome comes as `Finished`. Repeating it changes nothing. */
  readonly stop: (request: StopRequest) => Effect.Effect<void>
  /** What it uses now; empty before and after its sandbox. Absent: the executor cannot tell. */
  readonly observe?: Effect.Effect<Observation>
}

/** Runs jobs, one attempt at a time. */
export class Executor extends Context.Service<Executor, {
  /** Begins the run; closing the scope ends and removes all of it. */
  readonly start: (assignment: Assignment) => Effect.Effect<Run, never, Scope.Scope>
  /** Joins a run that outlived its worker. `undefined`: there is none, and nothing of it runs. */
  readonly adopt: (assignment: Assignment) => Effect.Effect<Run | undefined, never, Scope.Scope>
}>()("stoker/layers/executor/Executor") {}
