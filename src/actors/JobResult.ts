/** What a job came to, between its end and its settlement. */
import type { StreamSummary } from "../schemas/JobEvent.ts"
import { Outcome } from "../schemas/Outcome.ts"
import { noUsage, type Usage } from "../schemas/Usage.ts"

/** What came of running it, not yet written down. */
export interface JobResult {
  readonly outcome: Outcome
  readonly usage: Usage
  readonly output: ReadonlyArray<StreamSummary>
  readonly startedAtMs?: number
}

export const unrun = (outcome: Outcome): JobResult => ({ outcome, usage: noUsage, output: [] })

export const rejected = (reason: string, remedy: string) => unrun(Outcome.cases.Rejected.make({ reason, remedy }))
