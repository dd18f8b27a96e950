/** What a class's sandboxes are doing, for telemetry and doctor. */
import type { ClassName } from "../schemas/Ids.ts"

/** Sandboxes and takers now; the rest are totals since the start. */
export interface PoolCounts {
  /** Taken, their scope not closing yet. */
  used: number
  making: number
  /** Their teardown has begun and not ended: still charged. */
  leaving: number
  /** Cold takes that wait for room in the host's budget. */
  blocked: number
  /** Takes that found one ready. */
  hits: number
  /** Takes that had to wait, or were refused. */
  misses: number
  /** Takes that no warm sandbox could serve: cold starts. Every take of a class without a pool is one. */
  unfit: number
  /** Sandboxes that could not be made. */
  failures: number
  /** Sandboxes that died or fell silent while they stood ready. */
  lost: number
  /** Sandboxes replaced for their age. */
  expired: number
  /** Sandboxes given up for another class's jobs. */
  givenUp: number
}

export interface PoolStats extends Readonly<PoolCounts> {
  readonly class: ClassName
  /** False: every sandbox of this class is made when it is asked for. */
  readonly pooled: boolean
  readonly idle: number
  /** Takers without a sandbox, for which one is made or has to wait for room. */
  readonly waiting: number
  /** How many should stand ready now. */
  readonly target: number
  /** Absent until one was made. */
  readonly lastProvisionMs?: number
  /** No sandbox can be made: for how long, why, and what to do. */
  readonly failing?: { readonly forMs: number; readonly reason: string; readonly remedy: string }
}

export const noCounts = (): PoolCounts => ({
  used: 0,
  making: 0,
  leaving: 0,
  blocked: 0,
  hits: 0,
  misses: 0,
  unfit: 0,
  failures: 0,
  lost: 0,
  expired: 0,
  givenUp: 0
})
