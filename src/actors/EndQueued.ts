/** Ends a job that waits in the journal and that no actor has in hand. */
import { Effect } from "effect"
import type { Delivery } from "../layers/intake/Intake.ts"
import type { JobRecord } from "../layers/journal/Journal.ts"
import { Outcome } from "../schemas/Outcome.ts"
import { Desk } from "./Desk.ts"
import * as Books from "./JobBooks.ts"
import { unrun } from "./JobResult.ts"
import { around } from "./JobTelemetry.ts"
import * as Teller from "./Teller.ts"

/** Claims it and settles it as `Stopped`, told like any other end. False if somebody else has it by now. */
export const endQueued = ({ request, tries }: JobRecord, reason: string) => {
  const delivery: Delivery = {
    ...request,
    redelivered: false,
    attempt: tries ?? 1,
    ack: Effect.void,
    reject: () => Effect.void,
    giveBack: Effect.void
  }
  return end(delivery, reason).pipe(around(delivery))
}

const end = Effect.fnUntraced(
  function*(delivery: Delivery, reason: string) {
    const { watchers } = yield* Desk
    const answer = yield* Books.claim(delivery, true)
    if (answer._tag !== "Granted" && answer._tag !== "Exhausted") return answer._tag === "Settled"
    const teller = yield* Teller.make(delivery, watchers)
    teller.attempt(answer.claim.attempt)
    yield* Books.settle(answer.claim, teller, unrun(Outcome.cases.Stopped.make({ reason })))
    return true
  },
  Effect.scoped,
  Effect.catchTag("ClaimLost", () => Effect.succeed(false))
)
