/**
 * Claims whose lease ran out. That alone says little: clocks jump, and workers stand still for a while. Such a claim is
 * over when its worker is dead and nothing of it runs. Of a worker of this host its lock and the ledger tell; of another
 * host's only its silence: the same lease, not renewed for as long as it would have held, by our own monotonic clock (as
 * Kubernetes' leader election has it).
 */
import { Duration, Effect, Schedule } from "effect"
import { Settings } from "../layers/config/Settings.ts"
import { Host } from "../layers/host/Host.ts"
import { Journal, type Lapse } from "../layers/journal/Journal.ts"
import { Ledger } from "../layers/ledger/Ledger.ts"
import { monotonicNanos } from "../layers/Now.ts"
import { keyText } from "../schemas/Ids.ts"
import { Desk, type Sighting } from "./Desk.ts"

/** Lapses looked at in one round; the next round goes on. */
const PAGE = 1000

/** Sightings nobody came back to for so many leases are forgotten. */
const FORGOTTEN = 10n

const isSame = (seen: Sighting, { fence, instance, untilMs }: Lapse) =>
  seen.instance === instance && seen.fence === fence && seen.untilMs === untilMs

/** Whether this very lease has been seen for a whole lease's time; the first sighting begins that. */
const isSilent = Effect.fnUntraced(function*(lapse: Lapse) {
  const { sightings } = yield* Desk
  const { leaseMs } = yield* Settings
  const now = yield* monotonicNanos
  const lease = Duration.toNanosUnsafe(leaseMs)
  for (const [key, { atNanos }] of sightings) if (now - atNanos > FORGOTTEN * lease) sightings.delete(key)
  const key = keyText(lapse.key)
  const seen = sightings.get(key)
  const sinceNanos = seen !== undefined && isSame(seen, lapse) ? seen.sinceNanos : now
  const { fence, instance, untilMs } = lapse
  sightings.set(key, { instance, fence, untilMs, sinceNanos, atNanos: now })
  return now - sinceNanos >= lease
})

const isOver = Effect.fnUntraced(function*(lapse: Lapse) {
  const host = yield* Host
  // Ours, and nobody here runs it: giving it back failed, because the journal was away.
  if (lapse.instance === host.instance) return !(yield* Desk).claims.has(keyText(lapse.key))
  if (yield* host.isAlive(lapse.instance)) return false
  // What it ran may outlive it by the watchdog's second, or until the janitor has proven it gone, who frees the job then.
  if ((yield* (yield* Ledger).rows(lapse.instance)).length > 0) return false
  return (yield* Journal).scope === "host" || (yield* isSilent(lapse))
})

/** Ends a lapsed claim if its worker is dead; true if the job is free now. */
export const end = Effect.fnUntraced(
  function*(lapse: Lapse) {
    if (!(yield* isOver(lapse))) return false
    const isFree = yield* (yield* Journal).expire(lapse)
    const { sightings } = yield* Desk
    sightings.delete(keyText(lapse.key))
    if (isFree) yield* Effect.logInfo(`worker ${lapse.instance} is gone: job ${keyText(lapse.key)} is free again`)
    return isFree
  },
  Effect.catch((error) => Effect.as(Effect.logDebug(error.message), false))
)

/**
 * Looks for jobs of the embedded queue whose worker died with its host: nobody delivers them again. On a journal that is
 * this host's alone the janitor finds them by their worker's lock.
 */
export const rounds = Effect.gen(function*() {
  const journal = yield* Journal
  const { leaseMs } = yield* Settings
  if (journal.scope === "host") return yield* Effect.never
  yield* journal.lapsed(PAGE).pipe(
    Effect.flatMap(Effect.forEach(end, { discard: true })),
    Effect.ignore({ log: "Warn", message: "lapsed claims could not be read" }),
    Effect.schedule(Schedule.spaced(leaseMs / 3))
  )
})
