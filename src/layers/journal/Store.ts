/** What the rules ask of whatever keeps the rows. Synchronous: the caller sees to it that an operation is atomic. */
import type { JobState } from "../../schemas/Job.ts"
import type { JobRow, MessageRow, OwedRow, Standing } from "./Rows.ts"

export interface JobFilter {
  readonly id?: string
  readonly state?: JobState
  readonly limit: number
}

/** The order of rows is the order of their `insert`. */
export interface Store {
  readonly standing: (key: string) => Standing | undefined
  readonly row: (key: string) => JobRow | undefined
  /** At the end of the order; one with the same key is replaced. */
  readonly insert: (row: JobRow) => void
  /** Everything of a standing but `key`, `hash`, `delivered` and `receivedMs`, which never change. */
  readonly stand: (standing: Standing) => void
  readonly lease: (key: string, untilMs: number) => void
  readonly end: (key: string, endedMs: number, settlement: string) => void
  /** Removes the row. Fences of rows made later begin above its own: see `fenceFloor`. */
  readonly forget: (standing: Standing) => void
  /** The highest fence of any row that was forgotten; 0 at first. */
  readonly fenceFloor: () => number
  /** Oldest first. */
  readonly queued: (limit: number) => ReadonlyArray<JobRow>
  /** `running` rows of an instance, oldest first. */
  readonly heldBy: (instance: string) => ReadonlyArray<Standing>
  /** In alphabetical order. */
  readonly holders: () => ReadonlyArray<string>
  /** Newest first. */
  readonly list: (filter: JobFilter) => ReadonlyArray<JobRow>
  /** Removes up to `limit` rows that ended before `endedMs`, those that ended first, first. */
  readonly prune: (endedMs: number, limit: number) => void
  readonly owe: (key: string, fence: number, message: MessageRow, madeMs: number) => void
  /** What one claim's settling owes still, oldest first. */
  readonly owedBy: (key: string, fence: number) => ReadonlyArray<OwedRow>
  /** Oldest first. */
  readonly owed: (limit: number) => ReadonlyArray<OwedRow>
  readonly told: (row: number) => void
  readonly counts: () => { readonly queued: number; readonly owed: number }
}
