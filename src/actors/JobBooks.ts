/** What a job actor writes down and answers for: claiming, settling, putting off, refusing, telling again. */
import { Effect } from "effect"
import { Settings } from "../layers/config/Settings.ts"
import { Host } from "../layers/host/Host.ts"
import type { Delivery } from "../layers/intake/Intake.ts"
import { type Claim, type ClaimAnswer, Journal } from "../layers/journal/Journal.ts"
import { persist } from "../layers/journal/Persist.ts"
import { nowMs } from "../layers/Now.ts"
import { keyText } from "../schemas/Ids.ts"
import { broughtBack } from "../schemas/JobEvent.ts"
import { describe, Outcome } from "../schemas/Outcome.ts"
import type { Settlement } from "../schemas/Settlement.ts"
import { noUsage } from "../schemas/Usage.ts"
import { Desk } from "./Desk.ts"
import { kept } from "./JobArtefacts.ts"
import type { JobPlan } from "./JobPlan.ts"
import { type JobResult, rejected } from "./JobResult.ts"
import { attempting, JobTelemetry } from "./JobTelemetry.ts"
import { Outbox } from "./Outbox.ts"
import * as Teller from "./Teller.ts"

/** A request with another one's id: told to its own sender and kept as a dead letter; the other job hears nothing. */
export const refuse = Effect.fnUntraced(function*(delivery: Delivery, reason: string) {
  const teller = yield* Teller.make(delivery, undefined)
  const outcome = Outcome.cases.Rejected.make({ reason, remedy: "Send it again under an id of its own." })
  const { event, owed } = yield* teller.conclude({ _tag: "Ended", outcome, usage: noUsage, output: [] })
  yield* teller.settle(event, owed.map((message, row) => ({ row, message })))
  yield* delivery.reject(reason)
})

/** Tells an outcome that was written down before to whoever asks again. */
export const retell = Effect.fnUntraced(
  function*(teller: Teller.Teller, { attempt, outcome, output, usage, ...rest }: Settlement) {
    teller.attempt(attempt)
    // What a dead worker had still to tell comes before the end.
    yield* persist("what is owed", (yield* Outbox).sweep)
    const { event, owed } = yield* teller.conclude({ _tag: "Ended", outcome, usage, output, ...broughtBack(rest) })
    yield* teller.settle(event, owed.map((message, row) => ({ row, message })))
  }
)

/** The journal's answer, or why the request is none of its own. */
export type Admission =
  | { readonly _tag: "Refused"; readonly reason: string }
  | ClaimAnswer

/** Asks for the right to run it; `early`: to end it before its time. */
export const claim = Effect.fnUntraced(function*(delivery: Delivery, early: boolean = false) {
  const journal = yield* Journal
  const { leaseMs, maxAttempts } = yield* Settings
  const { instance } = yield* Host
  const options = { instance, leaseMs, maxAttempts, tries: delivery.attempt ?? 1, leavesLapsed: true, early }
  return yield* persist("a claim", journal.claim(delivery, options)).pipe(
    Effect.catch((conflict) => Effect.succeed<Admission>({ _tag: "Refused", reason: conflict.message }))
  )
})

/** The files are kept first, so that what is written down is there; then the outcome and all it owes, together; then told. */
export const settle = Effect.fnUntraced(function*(
  held: Claim,
  teller: Teller.Teller,
  ended: JobResult
) {
  const { harvest: _, ...result } = ended
  const journal = yield* Journal
  const outbox = yield* Outbox
  const telemetry = yield* JobTelemetry
  const { claims } = yield* Desk
  const files = yield* kept(held, ended)
  const { event, owed } = yield* teller.conclude({
    _tag: "Ended",
    outcome: result.outcome,
    usage: result.usage,
    output: result.output,
    ...files
  })
  const settlement: Settlement = { ...result, ...files, attempt: held.attempt, endedAtMs: event.atMs }
  const written = outbox.reserving(owed, persist("a settlement", journal.settle(held, settlement, owed)))
  const rows = yield* telemetry.settling(written)
  telemetry.settled(result.outcome, result.usage)
  // From now on there is nothing to renew; telling may take as long as the broker is away.
  claims.delete(keyText(held.key))
  yield* Effect.logInfo(`job ${describe(result.outcome)}`).pipe(
    Effect.annotateLogs({ outcome: result.outcome._tag })
  )
  yield* telemetry.telling(teller.settle(event, rows))
  yield* outbox.confirmed(rows)
}, attempting)

/** Tried again instead of settled, if its sender asked for that: the attempt is used up, the outcome is nobody's yet. */
export const putOff = Effect.fnUntraced(function*(delivery: Delivery, held: Claim, outcome: Outcome) {
  if (delivery.retry === undefined || !(yield* delivery.retry(outcome, held))) return false
  const journal = yield* Journal
  yield* persist("a retry", journal.postpone(held))
  ;(yield* JobTelemetry).putOff(outcome)
  yield* Effect.logInfo(`job is tried again: it ${describe(outcome)}`)
  return true
}, attempting)

const expired = rejected("expired in the queue", "Send it again with more time to live, or start more workers.")

/** It waited too long: never begun, and told so. */
export const tooLate = Effect.fnUntraced(function*({ expiresAtMs }: Delivery) {
  return expiresAtMs !== undefined && (yield* nowMs) >= expiresAtMs ? expired : undefined
})

/**
 * A job that may take longer than its transport lets it be held: acked now, and the journal's from here on. Or rejected,
 * where the journal may not own it.
 */
export const longHeld = Effect.fnUntraced(function*(delivery: Delivery, held: Claim, { program }: JobPlan) {
  const { hold } = delivery
  const mayTakeMs = program.phases.reduce((sum, { limits }) => sum + limits.wallMs, 0)
  if (hold === undefined || mayTakeMs <= hold.limitMs) return undefined
  if (!hold.journalMayOwn) {
    return rejected(
      `its time limits add up to ${mayTakeMs} ms, and its broker lets a job be held for ${hold.limitMs} ms`,
      "Lower its wall limit, or let this worker's own journal keep such jobs (ownLongJobs)."
    )
  }
  const journal = yield* Journal
  if (yield* persist("taking over a long job", journal.own(held))) yield* delivery.ack
  return undefined
})
