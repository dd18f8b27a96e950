/**
 * Rows as every store keeps them: plain data that crosses threads. JSON stays text until the Effect side decodes it.
 * Times are milliseconds since 1970.
 */
import type { JobState } from "../../schemas/Job.ts"
import type { Priority } from "../../schemas/Terms.ts"

/** What the rules decide on. Kept apart from the request, which may be large and is read only when it is asked for. */
export interface Standing {
  /** `keyText` of the job's key. */
  readonly key: string
  readonly hash: string
  /** It came by `claim` of a delivery, so it comes again by redelivery. Otherwise its queue is the journal. */
  readonly delivered: boolean
  readonly state: JobState
  /** Attempts used up, with the present one. */
  readonly attempt: number
  /** Which try of the sender's this is, 1 for the first. */
  readonly tries: number
  /** Attempts that earlier tries used up. */
  readonly spent: number
  /** A queued row is not begun before; rows of one priority begin in the order of this. */
  readonly dueMs: number
  /** The present claim used up an attempt: not so when it was given only to settle the job as `Lost`. */
  readonly counted: boolean
  readonly fence: number
  /** Who claims it, or ended it. A `running` row without one awaits its redelivery. */
  readonly instance: string | null
  readonly leaseUntilMs: number | null
  readonly receivedMs: number
  /** Of the latest claim. */
  readonly startedMs: number | null
  readonly endedMs: number | null
}

/** What was sent, and on which terms: enough to make a row of. */
export interface Sent {
  /** `keyText` of the job's key. */
  readonly key: string
  readonly intake: string
  readonly owner: string
  readonly id: string
  readonly hash: string
  /** The job's, apart from its request, so that it can be looked for. */
  readonly function: string
  /** JSON of `Job`. */
  readonly request: string
  /** JSON. */
  readonly reply: string
  readonly receivedMs: number
  readonly priority: Priority
  readonly expiresMs: number | null
  /** JSON of `RetryPolicy`; null for a job whose transport keeps it. */
  readonly retry: string | null
}

export interface JobRow extends Standing, Sent {
  /** JSON of `Settlement`. */
  readonly settlement: string | null
}

/** A row with its place in the order of intake, which rises and is never given twice. */
export interface ListedRow extends JobRow {
  readonly seq: number
}

/** A claim whose lease ran out, as somebody saw it. */
export interface Lapsed {
  readonly key: string
  readonly instance: string
  readonly fence: number
  readonly untilMs: number
}

/** A dead letter. There is one for a key at most. */
export interface LetterRow extends Sent {
  /** The last one. */
  readonly tries: number
  readonly diedMs: number
  readonly reason: string
  readonly remedy: string
}

/** A message as it is put into the outbox. `content` is JSON. */
export interface MessageRow {
  readonly id: string
  readonly emitter: string
  readonly content: string
}

export interface OwedRow extends MessageRow {
  /** Its place in the outbox. */
  readonly row: number
}
