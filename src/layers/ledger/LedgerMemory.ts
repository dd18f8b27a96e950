/** A ledger in memory, for deterministic tests. Its ids count from 1. */
import { Clock, Effect, Layer } from "effect"
import { SandboxId } from "../../schemas/Ids.ts"
import { Host } from "../host/Host.ts"
import { Ledger, type LedgerRow } from "./Ledger.ts"
import { letGo } from "./LedgerHold.ts"

const make = Effect.gen(function*() {
  const { instance } = yield* Host
  const rows = new Map<SandboxId, LedgerRow>()
  let made = 0

  const strike = (row: LedgerRow) => Effect.sync(() => void rows.delete(row.id))

  const write: Effect.Effect<(driver: LedgerRow["driver"]) => LedgerRow> = Effect.map(
    Clock.currentTimeMillis,
    (madeAtMs) => (driver) => {
      made += 1
      const row: LedgerRow = { id: SandboxId.make(`s${String(made).padStart(19, "0")}`), instance, driver, madeAtMs }
      rows.set(row.id, row)
      return row
    }
  )

  return Ledger.of({
    hold: (driver, isGone) =>
      Effect.acquireRelease(Effect.map(write, (make) => make(driver)), (row) => letGo(row, isGone, strike)),
    rows: (instance) =>
      Effect.sync(() => [...rows.values()].filter((row) => instance === undefined || row.instance === instance)),
    strike
  })
})

/** Rows end with the layer. */
export const layerMemory: Layer.Layer<Ledger, never, Host> = Layer.effect(Ledger, make)
