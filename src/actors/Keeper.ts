/** Renews the claims that are held, so that no other worker takes a job that still runs. */
import { Effect, Schedule } from "effect"
import { Settings } from "../layers/config/Settings.ts"
import { Journal } from "../layers/journal/Journal.ts"
import { keyText } from "../schemas/Ids.ts"
import { Desk } from "./Desk.ts"
import { Dispatcher } from "./Dispatcher.ts"

/** Three times within each lease. A journal that is away is asked again; the lease may run out meanwhile. */
export const rounds = Effect.gen(function*() {
  const { claims } = yield* Desk
  const { leaseMs } = yield* Settings
  const journal = yield* Journal
  const dispatcher = yield* Dispatcher
  yield* Effect.gen(function*() {
    if (claims.size === 0) return
    const lost = yield* journal.renew([...claims.values()], leaseMs)
    // One that was settled meanwhile is nobody's any more, and nothing is lost with it.
    const missed = lost.filter((claim) => claims.get(keyText(claim.key)) === claim)
    yield* Effect.forEach(missed, dispatcher.claimLost, { discard: true })
  }).pipe(
    Effect.ignore({ log: "Warn", message: "claims could not be renewed" }),
    Effect.schedule(Schedule.spaced(leaseMs / 3))
  )
})
