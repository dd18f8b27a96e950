/** The journal's operations as plain data that crosses threads, and what each answers. */
import type { JobRow, Lapsed, MessageRow, OwedRow } from "./Rows.ts"
import type { JobFilter } from "./Store.ts"

/** A request, already encoded, and the time of the asking. */
export interface Asked {
  readonly key: string
  readonly intake: string
  readonly owner: string
  readonly id: string
  readonly hash: string
  readonly request: string
  readonly reply: string
  readonly nowMs: number
}

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

export interface Operations {
  readonly submit: {
    readonly input: Asked
    readonly answer: Conflict | { readonly _tag: "Known"; readonly row: JobRow }
  }
  readonly claim: {
    readonly input: Asked & {
      readonly instance: string
      readonly leaseMs: number
      readonly maxAttempts: number
      readonly leavesLapsed: boolean
    }
    readonly answer:
      | Conflict
      | { readonly _tag: "Granted" | "Exhausted"; readonly attempt: number; readonly fence: number }
      | { readonly _tag: "Settled"; readonly settlement: string | null }
      | ({ readonly _tag: "Held" } & Holding)
  }
  readonly queued: { readonly input: { readonly limit: number }; readonly answer: ReadonlyArray<JobRow> }
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
  readonly postpone: { readonly input: { readonly claim: Claimed }; readonly answer: null }
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
  readonly get: { readonly input: { readonly key: string }; readonly answer: JobRow | null }
  readonly list: { readonly input: JobFilter; readonly answer: ReadonlyArray<JobRow> }
}

export type OperationName = keyof Operations
export type Operation<N extends OperationName = OperationName> = {
  readonly [K in N]: { readonly name: K; readonly input: Operations[K]["input"] }
}[N]
export type Answer<N extends OperationName = OperationName> = Operations[N]["answer"]

/** Those that write nothing: a batch of them needs no write lock. */
export const reads: ReadonlySet<OperationName> = new Set(["queued", "lapsed", "holders", "owed", "get", "list"])
