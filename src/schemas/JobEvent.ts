/** Facts in a job's life. The stream of them is the system's output; emitters turn them into something outside. */
import { Schema } from "effect"
import { JobKey } from "./Ids.ts"
import { Outcome, StreamName } from "./Outcome.ts"
import { PhaseName } from "./Program.ts"
import { PhaseUsage, Usage } from "./Usage.ts"

/** What a log ended with: bytes the program wrote, bytes left out (gaps), CRC-32 of the kept bytes. */
export const StreamSummary = Schema.Struct({
  stream: StreamName,
  producedBytes: Schema.Natural,
  droppedBytes: Schema.Natural,
  /** CRC-32 (IEEE 802.3, as zlib) of the kept bytes in order. */
  crc32: Schema.Natural
})
export type StreamSummary = typeof StreamSummary.Type

/** A file brought back from the workspace. */
export const Artefact = Schema.Struct({ path: Schema.String, bytes: Schema.Natural })
export type Artefact = typeof Artefact.Type

const common = {
  key: JobKey,
  /** 1 for the first try. */
  attempt: Schema.Natural,
  /** Rises by one within an attempt. */
  seq: Schema.Natural,
  /** Milliseconds since 1970, by the worker's clock. */
  atMs: Schema.Natural
}

/** One fact in a job's life. `Ended` is the last one, whatever attempt it belongs to. */
export const JobEvent = Schema.TaggedUnion({
  /** A worker has the job in its hands. */
  Received: common,
  /** A sandbox is ready and the first phase begins. `place`: where its counters are on its host, e.g. its cgroup. */
  Running: { ...common, place: Schema.optionalKey(Schema.String) },
  PhaseStarted: { ...common, phase: PhaseName },
  PhaseEnded: { ...common, phase: PhaseName, usage: PhaseUsage },
  /** The last event of a job. */
  Ended: { ...common, outcome: Outcome, usage: Usage, output: Schema.Array(StreamSummary) }
})
export type JobEvent = typeof JobEvent.Type
