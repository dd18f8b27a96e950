/** A pool that cannot make sandboxes: since when, how often, and when it may try again. */
import type { ProvisionFailed } from "../layers/sandbox/Sandbox.ts"
import type { PoolConfig } from "../schemas/PoolConfig.ts"

export interface PoolFault {
  /** Of the first failure in a row; milliseconds of a monotonic clock, like all times here. */
  readonly sinceMs: number
  readonly lastAtMs: number
  readonly retryAtMs: number
  /** Failures in a row. */
  readonly failures: number
  /** How often the pause was doubled. */
  readonly doubled: number
  readonly error: ProvisionFailed
}

type Backoff = Pick<PoolConfig, "backoffMs" | "backoffMaxMs">

/**
 * One failure more. Attempts that ran side by side count once for the pause: it grows only with an attempt that began
 * after the last failure. `random` is from 0 to 1.
 */
export const failedAgain = (
  { backoffMaxMs, backoffMs }: Backoff,
  fault: PoolFault | undefined,
  attempt: { readonly beganMs: number; readonly nowMs: number; readonly error: ProvisionFailed },
  random: number
): PoolFault => {
  const { beganMs, error, nowMs } = attempt
  if (fault !== undefined && beganMs < fault.lastAtMs) {
    return { ...fault, failures: fault.failures + 1, error }
  }
  const doubled = fault === undefined ? 0 : fault.doubled + 1
  const pauseMs = Math.min(backoffMaxMs, backoffMs * 2 ** Math.min(doubled, 30)) * (1 - random / 2)
  return {
    sinceMs: fault?.sinceMs ?? nowMs,
    lastAtMs: nowMs,
    retryAtMs: nowMs + pauseMs,
    failures: (fault?.failures ?? 0) + 1,
    doubled,
    error
  }
}
