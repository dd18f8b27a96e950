/** A job as the control plane shows it. Every door shows the same, in its own encoding. */
import { Schema } from "effect"
import { ClassName, FunctionName, InstanceId, IntakeName, JobId, Owner } from "./Ids.ts"
import { JobState } from "./Job.ts"
import { artefactFields, StreamSummary } from "./JobEvent.ts"
import { Outcome } from "./Outcome.ts"
import { Usage } from "./Usage.ts"

/** Times are milliseconds since 1970. What is absent is not known, or not yet. */
export const JobView = Schema.Struct({
  id: JobId,
  owner: Owner,
  /** The door it came through; `api` for those of the control plane. */
  intake: IntakeName,
  function: FunctionName,
  /** As they were sent. Absent for jobs of other doors whose senders keep them. */
  args: Schema.optionalKey(Schema.Json),
  class: Schema.optionalKey(ClassName),
  state: JobState,
  attempt: Schema.Natural,
  /** The worker that has it or had it. */
  instance: Schema.optionalKey(InstanceId),
  receivedAtMs: Schema.Natural,
  startedAtMs: Schema.optionalKey(Schema.Natural),
  endedAtMs: Schema.optionalKey(Schema.Natural),
  outcome: Schema.optionalKey(Outcome),
  usage: Schema.optionalKey(Usage),
  output: Schema.optionalKey(Schema.Array(StreamSummary)),
  ...artefactFields
})
export type JobView = typeof JobView.Type

/** A function as the control plane offers it. */
export const FunctionView = Schema.Struct({
  name: FunctionName,
  title: Schema.String,
  /** One sentence, which goes on after the name. */
  description: Schema.String,
  /** JSON Schema (draft 2020-12) of its arguments, self-contained. */
  args: Schema.Json,
  /** Fields the command line takes by their place, in that order: name, and word of the usage line. */
  positional: Schema.Array(Schema.Struct({ field: Schema.String, word: Schema.String })),
  needsNetwork: Schema.Boolean
})
export type FunctionView = typeof FunctionView.Type
