/** The durable record of jobs: claim, attempts, outcome, what has still to be told. */
import { Context, type Effect, Schema, type Stream } from "effect"
import { type InstanceId, type JobKey, JobKey as JobKeySchema } from "../../schemas/Ids.ts"
import type { Job, JobState } from "../../schemas/Job.ts"
import type { Message } from "../../schemas/Message.ts"
import type { Settlement } from "../../schemas/Settlement.ts"
import type { Priority, Terms } from "../../schemas/Terms.ts"
import type { Overloaded } from "../control/Overloaded.ts"

/** The journal could not be read or written. Nothing of the operation was done, or all of it; it may be repeated. */
export class JournalError extends Schema.TaggedError<JournalError>()("JournalError", {
  operation: Schema.String,
  reason: Schema.String,
  remedy: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    return `the journal could not ${this.operation}: ${this.reason}. ${this.remedy}`
  }
}

/** The same id with another request: it is refused, and the job that has the id is not touched. */
export class IdConflict extends Schema.TaggedError<IdConflict>()("IdConflict", { key: JobKeySchema }) {
  override get message() {
    return `job id ${this.key.id} is already taken by another request; choose a new id`
  }
}

/** The claim is no longer ours: the lease ran out and another worker went on. Nothing was written. */
export class ClaimLost extends Schema.TaggedError<ClaimLost>()("ClaimLost", { key: JobKeySchema }) {
  override get message() {
    return `the claim on job ${this.key.id} was lost to another worker`
  }
}

/** What an intake knows of a request, to be written down with it. */
export interface Request {
  readonly job: Job
  /** Of the request as it was sent, so that a repeat is told from a conflict. Hex SHA-256. */
  readonly hash: string
  /** Where its statuses go: the dialect's own words, plain JSON; null when nobody is to be told. */
  readonly reply: Schema.Json
}

/** Right to run a job: no other worker has it while the lease holds. */
export interface Claim {
  readonly key: JobKey
  readonly instance: InstanceId
  /** 1 for the first try. */
  readonly attempt: number
  /** Rises with every claim of the job; a write with an older one is refused. */
  readonly fence: number
}

/** Who has a job, by which claim, and until when if it is not renewed. Milliseconds since 1970. */
export interface Holder {
  readonly instance: InstanceId
  readonly fence: number
  readonly untilMs: number
}

/** A claim whose lease has run out, as it was seen. */
export interface Lapse extends Holder {
  readonly key: JobKey
}

export type ClaimAnswer =
  /** `firstAttempt`: of this try, where earlier tries had attempts of their own. */
  | { readonly _tag: "Granted"; readonly claim: Claim; readonly firstAttempt?: number }
  /** The same request ended before: answer it again, do not run it. */
  | { readonly _tag: "Settled"; readonly settlement: Settlement }
  /** Somebody runs it now, or ran it when his lease ended: `isLapsed`. */
  | ({ readonly _tag: "Held"; readonly isLapsed: boolean } & Holder)
  /** It is queued for another try than the one that was asked for, or is not due yet: let this delivery go. */
  | { readonly _tag: "Later" }
  /** All allowed attempts ended with their workers: the claim is given only to settle it as `Lost`. */
  | { readonly _tag: "Exhausted"; readonly claim: Claim; readonly attempts: number }

export interface ClaimOptions {
  readonly instance: InstanceId
  readonly leaseMs: number
  /** How often one try may begin when its workers die under it. */
  readonly maxAttempts: number
  /** Which try of the sender's this is; each has attempts of its own. Absent: 1. */
  readonly tries?: number
  /**
   * Whether a claim whose lease ran out is left to its holder, who may live: clocks jump, and workers stand still. The
   * answer is then `Held`, and who knows that the holder is dead ends the claim with `expire`. False if absent: the job
   * goes to who asks.
   */
  readonly leavesLapsed?: boolean
  /** Also a queued row that is not due yet: to end it, not to run it. */
  readonly early?: boolean
}

export interface SubmitOptions {
  /** Absent: the standard ones. A repeat stands on the terms of the first. */
  readonly terms?: Terms
  /** So many rows may be queued, delayed ones included; a new one more is refused. Absent: any number. */
  readonly maximum?: number
}

/** A row of the embedded queue. */
export interface QueuedJob {
  readonly request: Request
  readonly terms: Terms
  /** Which try is next, 1 for the first. */
  readonly tries: number
  readonly receivedAtMs: number
}

/** Where the owners' round was left, for each priority: the last owner who was looked at; "" at first. */
export type OwnersRound = Readonly<Record<Priority, string>>

export interface Due {
  /** Heavier levels first, the oldest first within a level or an owner. */
  readonly jobs: ReadonlyArray<QueuedJob>
  /** Where the round is now, if it was asked for. */
  readonly round?: OwnersRound
  /** When the next row becomes due that is not yet. Milliseconds since 1970; absent if there is none. */
  readonly nextMs?: number
}

/** Why a job is among the dead letters. */
export interface Why {
  readonly reason: string
  readonly remedy: string
}

/** A job that was rejected for good or gave up, with all that is needed to run it again. Found by its key. */
export interface DeadJob extends QueuedJob, Why {
  readonly diedAtMs: number
}

/** What came of asking for a dead job to be queued again. */
export type Revived =
  | { readonly _tag: "Queued"; readonly letter: DeadJob }
  | { readonly _tag: "Missing" }
  /** A job of its key waits or runs: it stays where it is. */
  | { readonly _tag: "Busy" }

/** A message owed, with its place in the outbox. */
export interface Owed {
  readonly row: number
  readonly message: Message
}

/**
 * What the journal knows of a job. `receivedAtMs` is milliseconds since 1970; there is a settlement once it has ended.
 */
export interface JobRecord {
  readonly request: Request
  readonly state: JobState
  readonly attempt: number
  readonly instance?: InstanceId
  readonly receivedAtMs: number
  /** When the latest claim on it began. Absent: nobody ever had it. */
  readonly startedAtMs?: number
  readonly settlement?: Settlement
  /** Of a job of the embedded queue; those of others stay with their transports. */
  readonly terms?: Terms
  /** Which try of the sender's this is. Absent: 1. */
  readonly tries?: number
  /** It is another worker's, as that one tells it: `args` (null), `limits`, `hash` and `reply` of its request are not known. */
  readonly isTold?: true
}

/** A place in a journal's list of jobs, opaque. Rows that come or go do not move it. */
export const JobCursor = Schema.String.check(
  Schema.isPattern(/^[0-9a-z]{1,10}$/, { expected: "a cursor as an earlier page gave it" })
).pipe(Schema.brand("JobCursor"))
export type JobCursor = typeof JobCursor.Type

/** Which jobs, and how many at most. What is absent does not matter. */
export interface JobsWanted {
  /** Finds a job whatever its door and owner. */
  readonly id?: string
  readonly state?: JobState
  readonly owner?: string
  readonly function?: string
  /** Only jobs behind that place: the next page begins at the last job's `cursor`. */
  readonly before?: JobCursor
  readonly limit: number
}

/** A record with its place in the list. */
export interface ListedJob extends JobRecord {
  readonly cursor: JobCursor
}

/** Where jobs are written down. Each operation is one transaction, durable when it returns. */
export class Journal extends Context.Service<Journal, {
  /**
   * Who may hold claims here: workers of this host, whose locks tell whether they live, or workers of any host, of which
   * only their leases tell.
   */
  readonly scope: "host" | "shared"
  /** The embedded queue's door: a row in state `queued`, durable when this returns. A repeat answers with its record. */
  readonly submit: (
    request: Request,
    options?: SubmitOptions
  ) => Effect.Effect<JobRecord, IdConflict | Overloaded | JournalError>
  /** Claims a job that a delivery brought, writing it down if it is new. */
  readonly claim: (request: Request, options: ClaimOptions) => Effect.Effect<ClaimAnswer, IdConflict | JournalError>
  /**
   * Queued rows that are due, up to `limit` of each priority, but for those keys (`keyText`). They are still to be claimed.
   * The oldest of all; with a `round`, where more are due than that, the oldest of each owner: of those who have the very
   * oldest, and of as many others as `limit` says, from the round's place on. So who queues thousands does not keep others
   * from their turn. There may be twice as many rows then.
   */
  readonly queued: (
    limit: number,
    except?: ReadonlyArray<string>,
    round?: OwnersRound
  ) => Effect.Effect<Due, JournalError>
  /**
   * Jobs were queued, by this process or another. A hint to look at once: some come for nothing, and those that are lost
   * are made up for by looking now and then.
   */
  readonly arrivals: Stream.Stream<void>
  /** Prolongs leases; gives back the claims that are no longer ours. */
  readonly renew: (claims: ReadonlyArray<Claim>, leaseMs: number) => Effect.Effect<ReadonlyArray<Claim>, JournalError>
  /** Outcome and owed messages in one transaction. */
  readonly settle: (
    claim: Claim,
    settlement: Settlement,
    messages: ReadonlyArray<Message>
  ) => Effect.Effect<ReadonlyArray<Owed>, ClaimLost | JournalError>
  /** Gives a job back unrun: queued again (embedded) or forgotten (delivered), the attempt not counted. */
  readonly release: (claim: Claim) => Effect.Effect<void, JournalError>
  /**
   * Puts a job that was run off to another try: the attempt stays counted. With `notBeforeMs` it is queued again and due
   * then. Without, its transport has a copy: it awaits that, also where the journal had taken the job over.
   */
  readonly postpone: (claim: Claim, notBeforeMs?: number) => Effect.Effect<void, JournalError>
  /**
   * Takes a delivered job over: the journal owns it from now on like a row of the embedded queue, so that its delivery
   * may be acked before it ends. Durable when it returns; false if the claim stands no more.
   */
  readonly own: (claim: Claim) => Effect.Effect<boolean, JournalError>
  /** Claims on rows of the embedded queue whose lease ran out, by the journal's clock; the oldest first. */
  readonly lapsed: (limit: number) => Effect.Effect<ReadonlyArray<Lapse>, JournalError>
  /**
   * Its holder is dead: the claim ends, if it is still that very lease. The job is queued again, or awaits its
   * redelivery. False if the claim was renewed, given back or settled meanwhile.
   */
  readonly expire: (lapse: Lapse) => Effect.Effect<boolean, JournalError>
  /** A dead worker's claims end now: its jobs are queued again, or await their redelivery. Gives their number. */
  readonly abandon: (instance: InstanceId) => Effect.Effect<number, JournalError>
  /** Instances that hold claims. The janitor asks which of them are dead. */
  readonly holders: Effect.Effect<ReadonlyArray<InstanceId>, JournalError>
  /** Messages not yet confirmed, oldest first. */
  readonly owed: (limit: number) => Effect.Effect<ReadonlyArray<Owed>, JournalError>
  /** They are confirmed: strikes them off. */
  readonly told: (rows: ReadonlyArray<number>) => Effect.Effect<void, JournalError>
  /** How much waits: rows that nobody has claimed, messages not yet struck off. */
  readonly counts: Effect.Effect<{ readonly queued: number; readonly owed: number }, JournalError>
  /**
   * Keeps a job as a dead letter, in place of an older one of its key. With a claim: if that still stands, and it is then
   * to be settled. Without: a row of it that is queued ends as `Rejected`.
   */
  readonly bury: (job: QueuedJob, why: Why, claim?: Claim) => Effect.Effect<void, JournalError>
  /** Dead letters, the oldest first, and how many there are in all. */
  readonly dead: (
    limit: number
  ) => Effect.Effect<{ readonly total: number; readonly letters: ReadonlyArray<DeadJob> }, JournalError>
  readonly letter: (key: JobKey) => Effect.Effect<DeadJob | undefined, JournalError>
  /** Queues a dead job as new, although a job of its id may have ended just before; its letter goes with that. */
  readonly revive: (key: JobKey) => Effect.Effect<Revived, JournalError>
  /** Throws a letter away; false if there is none. */
  readonly discard: (key: JobKey) => Effect.Effect<boolean, JournalError>
  /** Removes what was kept long enough, a bounded number of rows and letters. Gives how many. */
  readonly prune: Effect.Effect<number, JournalError>
  /** Those of the keys (`keyText`) that no row has. */
  readonly unknown: (keys: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<string>, JournalError>
  readonly get: (key: JobKey) => Effect.Effect<JobRecord | undefined, JournalError>
  /**
   * Newest first. There may be more when there are as many as `limit`. Where no id is asked for, requests of more than 4096
   * characters come without their arguments (`{}`).
   */
  readonly list: (filter: JobsWanted) => Effect.Effect<ReadonlyArray<ListedJob>, JournalError>
  /**
   * Forgets a job that has ended, so that its id is free: a repeat of it is a new job, also one that the broker delivers
   * again. `Busy`: it is queued or runs, and nothing was done. Messages still owed for it stay owed; a dead letter of it
   * stays. No claim that was ever given for it fits a later job of its key.
   */
  readonly remove: (key: JobKey) => Effect.Effect<"Removed" | "Missing" | "Busy", JournalError>
}>()("stoker/layers/journal/Journal") {}
