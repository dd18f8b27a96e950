/** What is written down when a job ends, and told again to whoever asks later. */
import { Schema } from "effect"
import { artefactFields, StreamSummary } from "./JobEvent.ts"
import { Outcome } from "./Outcome.ts"
import { Usage } from "./Usage.ts"

/** How a job ended, what it used, what it printed and which files it left. Times are milliseconds since 1970; absent start: it never ran. */
export const Settlement = Schema.Struct({
  outcome: Outcome,
  usage: Usage,
  output: Schema.Array(StreamSummary),
  ...artefactFields,
  attempt: Schema.Natural,
  startedAtMs: Schema.optionalKey(Schema.Natural),
  endedAtMs: Schema.Natural
})
export type Settlement = typeof Settlement.Type
