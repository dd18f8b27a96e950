/** What a job came to, between its end and its settlement. */
import type { Effect } from "effect"
import type { ArtefactError } from "../layers/artefacts/Artefacts.ts"
import type { BroughtBack, StreamSummary } from "../schemas/JobEvent.ts"
import { Outcome } from "../schemas/Outcome.ts"
import { noUsage, type Usage } from "../schemas/Usage.ts"

/** Files it left, in a place of their own until they are kept: then they are there for whoever reads the settlement. */
export interface Harvest extends BroughtBack {
  readonly keep: Effect.Effect<void, ArtefactError>
}

/** What came of running it, not yet written down. */
export interface JobResult {
  readonly outcome: Outcome
  readonly usage: Usage
  readonly output: ReadonlyArray<StreamSummary>
  readonly startedAtMs?: number
  /** Absent: it asked for none, or never ran. */
  readonly harvest?: Harvest
}

export const unrun = (outcome: Outcome): JobResult => ({ outcome, usage: noUsage, output: [] })

export const rejected = (reason: string, remedy: string) => unrun(Outcome.cases.Rejected.make({ reason, remedy }))
