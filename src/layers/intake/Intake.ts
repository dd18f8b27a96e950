/** A door through which jobs come. It decodes through its dialect and hands over deliveries; it runs nothing. */
import { Context, type Effect, type Stream } from "effect"
import type { IntakeName } from "../../schemas/Ids.ts"
import type { Outcome } from "../../schemas/Outcome.ts"
import type { Priority } from "../../schemas/Terms.ts"
import type { Claim, Request } from "../journal/Journal.ts"

/** A job as an intake hands it over. Exactly one of `ack`, `reject`, `giveBack` is used; none of them fails. */
export interface Delivery extends Request {
  /** The transport says it has handed this out before. A hint: the journal decides. */
  readonly redelivered: boolean
  /** The job is settled and told: forget it. */
  readonly ack: Effect.Effect<void>
  /** It will never be run: keep it with the reason (dead letter). */
  readonly reject: (reason: string) => Effect.Effect<void>
  /** Not started here: hand it to another worker or to us later. */
  readonly giveBack: Effect.Effect<void>
  /**
   * Its queue is the journal: while another worker has the job there is nothing to wait for, and if it is queued again
   * it is found again. Absent: false.
   */
  readonly fromJournal?: boolean
  /** Before which others it begins. Absent: `normal`. */
  readonly priority?: Priority
  /** Which try of the sender's this is, 1 for the first; each may take the configured attempts. Absent: 1. */
  readonly attempt?: number
  /**
   * What came of a try, before it is settled: true if it shall be tried again. The transport then has the copy for the
   * next try, and this delivery is acked without a settlement. False for a last try, which may be kept as a dead letter
   * here. Absent: nothing is tried again.
   */
  readonly retry?: (outcome: Outcome, claim: Claim) => Effect.Effect<boolean>
  /** Not begun after: it is then settled as `Rejected`. Milliseconds since 1970; absent: never too late. */
  readonly expiresAtMs?: number
  /**
   * How long the transport lets a delivery be held, and whether this worker's journal may own a job that may take
   * longer (its delivery is then acked at the claim). Absent: for ever.
   */
  readonly hold?: { readonly limitMs: number; readonly journalMayOwn: boolean }
}

/** A door. Its name is the `intake` of its jobs' keys. */
export interface Intake {
  readonly name: IntakeName
  /** Never fails; interrupting it stops taking, and what was handed over can still be settled. */
  readonly deliveries: Stream.Stream<Delivery>
}

/** The doors this worker was built with. */
export class Intakes extends Context.Service<Intakes, ReadonlyArray<Intake>>()("stoker/layers/intake/Intakes") {}
