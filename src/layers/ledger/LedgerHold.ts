/** How a row is let go: the same for every ledger. */
import { Effect, Schedule } from "effect"
import * as Release from "../Release.ts"
import type { LedgerError, LedgerRow } from "./Ledger.ts"

/** The proof has so long; without one the row stays for the janitor. */
const proofLimit = "5 seconds"

const again = Schedule.spaced("100 millis").pipe(Schedule.upTo({ times: 40 }))

/** Strikes the row if it is proven that nothing of its sandbox is left. Always ends, never fails. */
export const letGo = (
  row: LedgerRow,
  isGone: (row: LedgerRow) => Effect.Effect<boolean, unknown>,
  strike: (row: LedgerRow) => Effect.Effect<void, LedgerError>
): Effect.Effect<void> =>
  isGone(row).pipe(
    // On a busy host the kernel lets go of a cgroup some time after its last process.
    Effect.repeat({ until: (gone) => gone, schedule: again }),
    Effect.flatMap((gone) =>
      gone ? strike(row) : Effect.logWarning(`sandbox ${row.id} is not proven gone, left to the janitor`)
    ),
    Release.within(`ledger row of sandbox ${row.id}`, proofLimit)
  )
