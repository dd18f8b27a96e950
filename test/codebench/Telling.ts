/** Jobs' lives as the emitter is told of them. */
import type { Telling } from "../../src/layers/emitter/Emitter.ts"
import type { Job } from "../../src/schemas/Job.ts"
import { keyOf } from "../../src/schemas/Job.ts"
import { JobEvent, type StreamSummary } from "../../src/schemas/JobEvent.ts"
import { Outcome } from "../../src/schemas/Outcome.ts"

export const exit = (code: number) => Outcome.cases.Exited.make({ phase: "run", code })

export const summary = (stream: "stdout" | "stderr", producedBytes: number): StreamSummary => ({
  stream,
  producedBytes,
  droppedBytes: 0,
  crc32: 0
})

const common = (job: Job, seq: number) => ({ key: keyOf(job), attempt: 1, seq, atMs: 0 })

/** Received, Running, both phase events, Ended. */
export const life = (
  job: Job,
  reply: Telling["reply"],
  outcome: Outcome = exit(0),
  output: ReadonlyArray<StreamSummary> = []
): ReadonlyArray<Telling> => {
  const run = { phase: "run", wallMicros: 1500, memoryPeakBytes: 1024 * 1024 } as const
  return [
    JobEvent.cases.Received.make(common(job, 0)),
    JobEvent.cases.Running.make(common(job, 1)),
    JobEvent.cases.PhaseStarted.make({ ...common(job, 2), phase: "run" }),
    JobEvent.cases.PhaseEnded.make({ ...common(job, 3), phase: "run", usage: run }),
    JobEvent.cases.Ended.make({ ...common(job, 4), outcome, usage: { phases: [run] }, output })
  ].map((event) => ({ event, job, reply }))
}
