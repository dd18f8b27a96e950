/** The journal's operations as plain data that crosses threads, and what each answers. */
import type { Priority } from "../../schemas/Terms.ts"
import type { JobRow, Lapsed, LetterRow, ListedRow, MessageRow, OwedRow, Sent } from "./Rows.ts"
import type { JobFilter } from "./Store.ts"

/** A request, already encoded; it is received at the time of the asking. */
export type Asked = Sent

/** By these a claim is told from an older one. */
export interface Claimed {
  readonly key: string
  readonly instance: string
  readonly fence: number
}

/** Whose claim it is, and until when. */
export interface Holding {
  readonly instance: string
  readonly fence: number
  readonly untilMs: number
  /** The lease has run out. */
  readonly isLapsed: boolean
}

/** The same id, another request. */
export interface Conflict {
  readonly _tag: "Conflict"
}

/** How much waits. */
export interface Counts {
  readonly queued: number
  readonly owed: number
}

export interface Operations {
  readonly submit: {
    /** `notBeforeMs` null: due at once. `maximum` null: any number may be queued. */
    readonly input: Asked & { readonly notBeforeMs: number | null; readonly maximum: number | null }
    readonly answer: Conflict | { readonly _tag: "Full" } | { readonly _tag: "Known"; readonly row: JobRow }
  }
  readonly claim: {
    readonly input: Asked & {
      readonly instance: string
      readonly leaseMs: number
      readonly maxAttempts: number
      readonly tries: number
      readonly leavesLapsed: boolean
      readonly early: boolean
    }
    readonly answer:
      | Conflict
      | {
        readonly _tag: "Granted" | "Exhausted"
        readonly attempt: number
        readonly fence: number
        /** Of this try alone. */
        readonly ofTry: number
      }
      | { readonly _tag: "Settled"; readonly settlement: string | null }
      | ({ readonly _tag: "Held" } & Holding)
      | { readonly _tag: "Later" }
  }
  readonly queued: {
    /** `limit` is for each priority. `round` null: the oldest, whosever they are. */
    readonly input: {
      readonly limit: number
      readonly except: ReadonlyArray<string>
      readonly round: Readonly<Record<Priority, string>> | null
      readonly nowMs: number
    }
    readonly answer: {
      readonly rows: ReadonlyArray<JobRow>
      readonly nextMs: number | null
      readonly round: Readonly<Record<Priority, string>> | null
    }
  }
  readonly renew: {
    readonly input: { readonly claims: ReadonlyArray<Claimed>; readonly leaseMs: number; readonly nowMs: number }
    /** Places in `claims` of those that are no longer theirs. */
    readonly answer: ReadonlyArray<number>
  }
  readonly settle: {
    readonly input: {
      readonly claim: Claimed
      readonly settlement: string
      readonly messages: ReadonlyArray<MessageRow>
      readonly nowMs: number
    }
    readonly answer: { readonly _tag: "Lost" } | { readonly _tag: "Ended"; readonly owed: ReadonlyArray<OwedRow> }
  }
  readonly release: { readonly input: { readonly claim: Claimed }; readonly answer: null }
  readonly postpone: {
    readonly input: { readonly claim: Claimed; readonly dueMs: number | null }
    readonly answer: null
  }
  /** Whether the claim still stood. */
  readonly own: { readonly input: { readonly claim: Claimed }; readonly answer: boolean }
  readonly lapsed: {
    readonly input: { readonly limit: number; readonly nowMs: number }
    readonly answer: ReadonlyArray<Lapsed>
  }
  /** Whether it was ended. */
  readonly expire: { readonly input: { readonly lapse: Lapsed; readonly nowMs: number }; readonly answer: boolean }
  readonly abandon: { readonly input: { readonly instance: string }; readonly answer: number }
  readonly holders: { readonly input: null; readonly answer: ReadonlyArray<string> }
  readonly owed: { readonly input: { readonly limit: number }; readonly answer: ReadonlyArray<OwedRow> }
  readonly told: { readonly input: { readonly rows: ReadonlyArray<number> }; readonly answer: null }
  /** Rows that nobody has claimed; messages not yet struck off. */
  readonly counts: { readonly input: null; readonly answer: Counts }
  readonly bury: {
    /** `settlement` is for a queued row, which ends with it. */
    readonly input: { readonly letter: LetterRow; readonly claim: Claimed | null; readonly settlement: string }
    readonly answer: null
  }
  readonly dead: {
    readonly input: { readonly limit: number }
    readonly answer: { readonly total: number; readonly letters: ReadonlyArray<LetterRow> }
  }
  readonly letter: { readonly input: { readonly key: string }; readonly answer: LetterRow | null }
  readonly revive: {
    readonly input: { readonly key: string; readonly nowMs: number }
    readonly answer:
      | { readonly _tag: "Queued"; readonly letter: LetterRow }
      | { readonly _tag: "Missing" | "Busy" }
  }
  readonly discard: { readonly input: { readonly key: string }; readonly answer: boolean }
  readonly prune: { readonly input: { readonly nowMs: number }; readonly answer: number }
  readonly unknown: { readonly input: { readonly keys: ReadonlyArray<string> }; readonly answer: ReadonlyArray<string> }
  readonly get: { readonly input: { readonly key: string }; readonly answer: JobRow | null }
  readonly list: { readonly input: JobFilter; readonly answer: ReadonlyArray<ListedRow> }
  readonly remove: { readonly input: { readonly key: string }; readonly answer: "Removed" | "Missing" | "Busy" }
}

export type OperationName = keyof Operations
export type Operation<N extends OperationName = OperationName> = {
  readonly [K in N]: { readonly name: K; readonly input: Operations[K]["input"] }
}[N]
export type Answer<N extends OperationName = OperationName> = Operations[N]["answer"]

/** Those that write nothing: a batch of them needs no write lock. */
export const reads: ReadonlySet<OperationName> = new Set([
  "queued",
  "lapsed",
  "holders",
  "owed",
  "counts",
  "dead",
  "letter",
  "unknown",
  "get",
  "list"
])
