/** What a machine is told first, and what it has to say to that: one that was copied is another one from then on. */
import { Clock, Effect } from "effect"
import { SecureRandom } from "effect/crypto"
import * as Personalisation from "../../../guest/Personalisation.ts"
import type { LinkOptions } from "../GuestLink.ts"
import { ProvisionFailed } from "../Sandbox.ts"

/** What is known of a machine before it is spoken to. */
export interface Facts {
  readonly hostname: string
  readonly hasRoute: boolean
  readonly resolvConf: string
}

/** Bytes of the host's entropy for each machine. */
const ENTROPY_BYTES = 256

/** Ids of machines that were remembered: two with the same one are copies of each other. */
const REMEMBERED = 10_000

export const make = (driver: string) =>
  Effect.gen(function*() {
    const random = yield* SecureRandom.SecureRandom
    const clock = yield* Clock.Clock
    const seen = new Set<string>()
    const isNew = (id: string) => {
      if (seen.has(id)) return false
      seen.add(id)
      const [oldest] = seen
      if (seen.size > REMEMBERED && oldest !== undefined) seen.delete(oldest)
      return true
    }
    return Effect.fnUntraced(function*({ hasRoute, hostname, resolvConf }: Facts) {
      const token = yield* random.randomBytes(Personalisation.tokenBytes)
      const hello = yield* Effect.fromResult(Personalisation.encode({
        clockMillis: yield* Clock.currentTimeMillis,
        token,
        entropy: yield* random.randomBytes(ENTROPY_BYTES),
        hostname,
        defaultRoute: hasRoute,
        resolvConf
      })).pipe(
        Effect.mapError((error) =>
          new ProvisionFailed({
            driver,
            step: "start",
            reason: error.message,
            remedy: "Look at the class's networkSetup.nameservers.",
            cause: error
          })
        )
      )
      const greeting: LinkOptions = {
        hello,
        confirm: (answer) =>
          Personalisation.refusal({ token }, answer, clock.currentTimeMillisUnsafe()) ??
            (isNew(Buffer.from(answer.machineId).toString("hex"))
              ? undefined
              : "another machine of this worker has the same id: they share their random numbers")
      }
      return greeting
    })
  })
