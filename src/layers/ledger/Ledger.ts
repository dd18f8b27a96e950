/** The host-local record of sandboxes held: a row exists before the first kernel object and goes after the last. */
import { Context, type Effect, Schema, type Scope } from "effect"
import { InstanceId, SandboxId } from "../../schemas/Ids.ts"
import { DriverName } from "../../schemas/SandboxClass.ts"

/** A row could not be read, written or struck. A sandbox without its row is never made. */
export class LedgerError extends Schema.TaggedError<LedgerError>()("LedgerError", {
  operation: Schema.String,
  reason: Schema.String,
  remedy: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    return `the ledger could not ${this.operation}: ${this.reason}. ${this.remedy}`
  }
}

/** One held sandbox. Every name on the host is derived from `instance` and `id`. */
export const LedgerRow = Schema.Struct({
  id: SandboxId,
  instance: InstanceId,
  driver: DriverName,
  madeAtMs: Schema.Natural
})
export type LedgerRow = typeof LedgerRow.Type

/** What is held on this host, row by row. */
export class Ledger extends Context.Service<Ledger, {
  /**
   * Writes a row for a sandbox that is about to be made. When the scope closes, `isGone` is asked: true strikes the
   * row, false or failure leaves it to the janitor.
   */
  readonly hold: (
    driver: DriverName,
    isGone: (row: LedgerRow) => Effect.Effect<boolean, unknown>
  ) => Effect.Effect<LedgerRow, LedgerError, Scope.Scope>
  /** Rows of an instance, or all of this host's. A row that cannot be read is an error, never skipped. */
  readonly rows: (instance?: InstanceId) => Effect.Effect<ReadonlyArray<LedgerRow>, LedgerError>
  /** Proven gone by somebody else: the janitor. */
  readonly strike: (row: LedgerRow) => Effect.Effect<void, LedgerError>
}>()("stoker/layers/ledger/Ledger") {}
