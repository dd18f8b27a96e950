/** Renews the claims that are held, so that no other worker takes a job that still runs. */
import { Duration, Effect, Schedule } from "effect"
import { Settings } from "../layers/config/Settings.ts"
import { type Claim, Journal } from "../layers/journal/Journal.ts"
import { monotonicNanos } from "../layers/Now.ts"
import { keyText } from "../schemas/Ids.ts"
import { Desk } from "./Desk.ts"
import { Dispatcher } from "./Dispatcher.ts"

/**
 * Three times within each lease. A journal that is away is asked again; the lease may run out meanwhile. Workers of other
 * hosts take over what was silent for a lease after its lease ran out: before that, what cannot be renewed is ended.
 */
export const rounds = Effect.gen(function*() {
  const { claims } = yield* Desk
  const { leaseMs } = yield* Settings
  const journal = yield* Journal
  const dispatcher = yield* Dispatcher
  /** When each was known to be ours, as the monotonic clock has it. */
  const goodAt = new Map<string, { readonly claim: Claim; readonly nanos: bigint }>()

  const overdue = (now: bigint) =>
    [...goodAt.values()].filter(({ nanos }) => now - nanos >= Duration.toNanosUnsafe(leaseMs)).map(({ claim }) => claim)

  /** One that was settled meanwhile is nobody's any more, and nothing is lost with it. */
  const missed = (lost: ReadonlyArray<Claim>) =>
    Effect.forEach(
      lost.filter((claim) => claims.get(keyText(claim.key)) === claim),
      dispatcher.claimLost,
      { discard: true }
    )

  const renewed = Effect.gen(function*() {
    const held = [...claims]
    const now = yield* monotonicNanos
    for (const key of goodAt.keys()) if (!claims.has(key)) goodAt.delete(key)
    for (const [key, claim] of held) {
      if (goodAt.get(key)?.claim.fence !== claim.fence) goodAt.set(key, { claim, nanos: now })
    }
    if (held.length === 0) return
    // Not longer than to the next round: one that hangs must not hide that time runs out.
    const lost = yield* Effect.timeout(journal.renew(held.map(([, claim]) => claim), leaseMs), leaseMs / 3)
    for (const [key, claim] of held) goodAt.set(key, { claim, nanos: now })
    yield* missed(lost)
  })

  yield* renewed.pipe(
    Effect.tapError(() =>
      journal.scope === "host"
        ? Effect.void
        : Effect.flatMap(monotonicNanos, (now) => missed(overdue(now)))
    ),
    Effect.ignore({ log: "Warn", message: "claims could not be renewed" }),
    Effect.schedule(Schedule.spaced(leaseMs / 3))
  )
})
