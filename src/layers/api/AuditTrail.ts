/**
 * Sees to it that no decision is missing from the log, and that callers who look again and again do not fill it: what acts
 * and what is denied is written each time; a look that was allowed is written at once, and when the same caller looks the
 * same way again, as a number, a while later.
 */
import { Effect, type Scope } from "effect"
import type { Method } from "../../schemas/Access.ts"
import { audit, type Decision, jobOf } from "./Audit.ts"

/** How long equal looks are counted together. */
const TOGETHER = "10 seconds"
/** Different looks that are remembered; with more of them each is written. */
const mostRemembered = 10_000

const looks: ReadonlySet<Method> = new Set(["status", "list", "output", "functions"])

interface Look {
  readonly decision: Decision
  again: number
}

export interface AuditTrail {
  readonly record: (decision: Decision) => Effect.Effect<void>
}

const keyOf = ({ caller, job, method, outcome }: Decision) =>
  `${caller?.via} ${caller?.name} ${caller?.from ?? ""} ${method} ${job ?? ""} ${outcome}`

/** Counts until the scope closes, and writes then what is still counted. */
export const make: Effect.Effect<AuditTrail, never, Scope.Scope> = Effect.gen(function*() {
  const seen = new Map<string, Look>()
  const tell = Effect.suspend(() => {
    const counted = [...seen.values()].filter(({ again }) => again > 0)
    seen.clear()
    return Effect.forEach(counted, ({ again, decision }) => audit({ ...decision, again }), { discard: true })
  })
  yield* Effect.addFinalizer(() => tell)
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(Effect.sleep(TOGETHER), tell)))
  return {
    record: (asked) =>
      Effect.suspend(() => {
        const decision = asked.job === undefined ? asked : { ...asked, job: jobOf(asked.job) }
        const { allowed, method } = decision
        if (!allowed || method === undefined || !looks.has(method)) return audit(decision)
        const key = keyOf(decision)
        const known = seen.get(key)
        if (known !== undefined) {
          known.again += 1
          return Effect.void
        }
        if (seen.size < mostRemembered) seen.set(key, { decision, again: 0 })
        return audit(decision)
      })
  }
})
