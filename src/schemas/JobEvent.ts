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

/** A file brought back from the workspace. `sha256` is of its contents, in lower-case hexadecimal. */
export const Artefact = Schema.Struct({
  path: Schema.String,
  bytes: Schema.Natural,
  sha256: Schema.String.check(Schema.isPattern(/^[0-9a-f]{64}$/, { expected: "64 hexadecimal digits" }))
})
export type Artefact = typeof Artefact.Type

/** A file that was asked for and could not be brought back. It changes nothing of the job's outcome. */
export const MissingArtefact = Schema.Struct({ path: Schema.String, reason: Schema.String })
export type MissingArtefact = typeof MissingArtefact.Type

/** A file that is not the worker's to give: it is in a bucket of the job's object store. */
export const StoredArtefact = Schema.Struct({
  path: Schema.String,
  bucket: Schema.String,
  /** The object's name. */
  key: Schema.String,
  bytes: Schema.Natural
})
export type StoredArtefact = typeof StoredArtefact.Type

/** What came of the files a job asked to have back, in the order it asked; absent: of none. */
export const artefactFields = {
  artefacts: Schema.optionalKey(Schema.Array(Artefact)),
  artefactsStored: Schema.optionalKey(Schema.Array(StoredArtefact)),
  artefactsMissing: Schema.optionalKey(Schema.Array(MissingArtefact))
}

/** As `artefactFields` has it. */
export interface BroughtBack {
  readonly artefacts?: ReadonlyArray<Artefact>
  readonly artefactsStored?: ReadonlyArray<StoredArtefact>
  readonly artefactsMissing?: ReadonlyArray<MissingArtefact>
}

/** Those fields alone, of whatever has them, and only where something is in them. */
export const broughtBack = <A extends Artefact>(
  { artefacts = [], artefactsMissing = [], artefactsStored = [] }: BroughtBack & {
    readonly artefacts?: ReadonlyArray<A>
  }
): BroughtBack & { readonly artefacts?: ReadonlyArray<A> } => ({
  ...(artefacts.length === 0 ? {} : { artefacts }),
  ...(artefactsStored.length === 0 ? {} : { artefactsStored }),
  ...(artefactsMissing.length === 0 ? {} : { artefactsMissing })
})

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
  Ended: { ...common, outcome: Outcome, usage: Usage, output: Schema.Array(StreamSummary), ...artefactFields }
})
export type JobEvent = typeof JobEvent.Type
