/** What the rules ask of whatever keeps the rows. The caller sees to it that an operation is atomic. */
import type { JobState } from "../../schemas/Job.ts"
import type { JobRow, Lapsed, MessageRow, OwedRow, Standing } from "./Rows.ts"

export interface JobFilter {
  readonly id?: string
  readonly state?: JobState
  readonly limit: number
}

/**
 * One thing asked of a store, done by `yield*` and not before. A store that answers at once yields nothing (`Y` is
 * never); one that has to wait yields Effects, and any Effect is such a step.
 */
export interface Step<Y, A> {
  readonly [Symbol.iterator]: () => Iterator<Y, A, unknown>
}

/** The order of rows is the order of their `insert`. */
export interface Store<Y> {
  readonly standing: (key: string) => Step<Y, Standing | undefined>
  readonly row: (key: string) => Step<Y, JobRow | undefined>
  /** At the end of the order; one with the same key is replaced. */
  readonly insert: (row: JobRow) => Step<Y, void>
  /** Everything of a standing but `key`, `hash`, `delivered` and `receivedMs`, which never change. */
  readonly stand: (standing: Standing) => Step<Y, void>
  readonly lease: (key: string, untilMs: number) => Step<Y, void>
  readonly end: (key: string, endedMs: number, settlement: string) => Step<Y, void>
  /** Removes the row. Fences of rows made later begin above its own: see `fenceFloor`. */
  readonly forget: (standing: Standing) => Step<Y, void>
  /** The highest fence of any row that was forgotten; 0 at first. */
  readonly fenceFloor: () => Step<Y, number>
  /** Oldest first. */
  readonly queued: (limit: number) => Step<Y, ReadonlyArray<JobRow>>
  /** `running` rows of an instance, oldest first. */
  readonly heldBy: (instance: string) => Step<Y, ReadonlyArray<Standing>>
  /** `running` rows of the embedded queue whose lease ended at `nowMs` or before, those that ended first, first. */
  readonly lapsed: (nowMs: number, limit: number) => Step<Y, ReadonlyArray<Lapsed>>
  /** In alphabetical order. */
  readonly holders: () => Step<Y, ReadonlyArray<string>>
  /** Newest first. */
  readonly list: (filter: JobFilter) => Step<Y, ReadonlyArray<JobRow>>
  /** Removes up to `limit` rows that ended before `endedMs`, those that ended first, first. */
  readonly prune: (endedMs: number, limit: number) => Step<Y, void>
  readonly owe: (key: string, fence: number, message: MessageRow, madeMs: number) => Step<Y, void>
  /** What one claim's settling owes still, oldest first. */
  readonly owedBy: (key: string, fence: number) => Step<Y, ReadonlyArray<OwedRow>>
  /** Oldest first. */
  readonly owed: (limit: number) => Step<Y, ReadonlyArray<OwedRow>>
  readonly told: (row: number) => Step<Y, void>
}
