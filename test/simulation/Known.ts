/**
 * Promises that are broken today, each with the seed that shows it. What is listed here is counted instead of ending a
 * run; `STRICT=1` ends it all the same. An entry goes with its repair.
 */

export type Issue =
  /**
   * A retry's copy comes back while the actor that put the job off still waits for the broker's confirm or the journal:
   * the dispatcher lets it join that actor, which acks both. The job is never run again. `STRICT=1 SEED=33`
   */
  | "joined-retry"
  /** A job that expires on its way to another try is kept and told, but stays `running` in the journal for ever. */
  | "expired-retry"
  /**
   * A redelivery of a settled job is answered from the journal with the end alone, while earlier statuses still lie in
   * the outbox of a dead worker: these are then told after the end. `STRICT=1 SEED=15`
   */
  | "late-status"

/** The fourth one shows in `Day.ts`: what joins an actor whose request is refused is neither acked nor given back. */
export const isStrict = process.env["STRICT"] !== undefined
