/** What the rules ask of whatever keeps the rows. The caller sees to it that an operation is atomic. */
import type { JobState } from "../../schemas/Job.ts"
import type { Priority } from "../../schemas/Terms.ts"
import type { JobRow, Lapsed, LetterRow, ListedRow, MessageRow, OwedRow, Standing } from "./Rows.ts"

export interface JobFilter {
  readonly id?: string
  readonly state?: JobState
  readonly owner?: string
  readonly function?: string
  /** Only rows with a `seq` below it. */
  readonly before?: number
  readonly limit: number
}

/** Requests with more characters of JSON are listed without their arguments, unless an id is asked for. */
export const mostListed = 4096

/** All of them: a list of one owner's or function's rows is put together from those of each state. */
export const states: ReadonlyArray<JobState> = ["queued", "running", "ended"]

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
  /** Everything of a standing but `key`, `hash` and `receivedMs`, which never change. */
  readonly stand: (standing: Standing) => Step<Y, void>
  readonly lease: (key: string, untilMs: number) => Step<Y, void>
  readonly end: (key: string, endedMs: number, settlement: string) => Step<Y, void>
  /** Removes the row. Fences of rows made later begin above its own: see `fenceFloor`. */
  readonly forget: (standing: Standing) => Step<Y, void>
  /** The highest fence of any row that was forgotten; 0 at first. */
  readonly fenceFloor: () => Step<Y, number>
  /** Queued rows of a priority with `dueMs` not after `nowMs`, but for those keys, in the order of `dueMs`, then of rows. */
  readonly due: (
    priority: Priority,
    nowMs: number,
    limit: number,
    except: ReadonlyArray<string>
  ) => Step<Y, ReadonlyArray<JobRow>>
  /** The same of some owners, up to `limit` of each, one owner after the other. */
  readonly dueOf: (
    priority: Priority,
    owners: ReadonlyArray<string>,
    nowMs: number,
    limit: number,
    except: ReadonlyArray<string>
  ) => Step<Y, ReadonlyArray<JobRow>>
  /**
   * Owners with queued rows of a priority, due or not, in the order of their bytes, those behind `after` only. It takes no
   * longer the more rows they have.
   */
  readonly owners: (priority: Priority, after: string, limit: number) => Step<Y, ReadonlyArray<string>>
  /** The least `dueMs` after `nowMs` of a queued row of a priority; null if there is none. */
  readonly nextDue: (priority: Priority, nowMs: number) => Step<Y, number | null>
  /** How many rows are queued, due or not. Asked with each submit: it may not take longer the more there are. */
  readonly waiting: () => Step<Y, number>
  /** `running` rows of an instance, oldest first. */
  readonly heldBy: (instance: string) => Step<Y, ReadonlyArray<Standing>>
  /** `running` rows of the embedded queue whose lease ended at `nowMs` or before, those that ended first, first. */
  readonly lapsed: (nowMs: number, limit: number) => Step<Y, ReadonlyArray<Lapsed>>
  /** In alphabetical order. */
  readonly holders: () => Step<Y, ReadonlyArray<string>>
  /**
   * Newest first. Of all, or of a state, an owner, a function or an id it takes as long as `limit` asks for, however many
   * rows there are; of an owner and a function as long as to pass by the owner's other rows in an index.
   */
  readonly list: (filter: JobFilter) => Step<Y, ReadonlyArray<ListedRow>>
  /** Removes up to `limit` rows that ended before `endedMs`, those that ended first, first. Gives how many. */
  readonly prune: (endedMs: number, limit: number) => Step<Y, number>
  readonly owe: (key: string, fence: number, message: MessageRow, madeMs: number) => Step<Y, void>
  /** What one claim's settling owes still, oldest first. */
  readonly owedBy: (key: string, fence: number) => Step<Y, ReadonlyArray<OwedRow>>
  /** Oldest first. */
  readonly owed: (limit: number) => Step<Y, ReadonlyArray<OwedRow>>
  readonly told: (row: number) => Step<Y, void>
  /** How many messages the outbox holds. */
  readonly owing: () => Step<Y, number>
  /** Keeps a dead letter, at the end of their order; one with the same key is replaced. */
  readonly bury: (letter: LetterRow) => Step<Y, void>
  readonly letter: (key: string) => Step<Y, LetterRow | undefined>
  /** Removes a letter, if it is there. */
  readonly exhume: (key: string) => Step<Y, void>
  /** How many letters there are. */
  readonly buried: () => Step<Y, number>
  /** In the order of `diedMs`, then of letters. */
  readonly letters: (limit: number) => Step<Y, ReadonlyArray<LetterRow>>
  /** Removes up to `limit` letters with `diedMs` before that, the oldest first. Gives how many. */
  readonly pruneLetters: (diedMs: number, limit: number) => Step<Y, number>
}
