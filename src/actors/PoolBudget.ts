/**
 * What all sandboxes of a worker hold together. Whoever makes one claims its charge first, and gives it back when the
 * sandbox's scope has closed. Jobs that wait come before refills, one class after the other; for them, sandboxes that
 * stand ready in other pools are given up. Synchronous: no claim is ever half made.
 */
import type { HostBudget, PoolCharge } from "../schemas/PoolConfig.ts"

/** Asks for room. At most one claim of a claimant waits at a time. */
export interface Claimant {
  readonly charge: PoolCharge
  /** Ask again: room was made, or it is this one's turn. Called inside a claim or a release: must not answer at once. */
  readonly ring: () => void
}

/** A pool that can do without some of what it holds. */
export interface Giver {
  readonly charge: PoolCharge
  /** Sandboxes that stand ready. */
  readonly idle: () => number
  /** Those it keeps at least, given up last. */
  readonly minimum: number
  /** Lets one of them go; it calls `leaving` before it returns. */
  readonly giveUp: () => void
}

/** Sums of charges. */
export interface Held {
  readonly memoryBytes: number
  readonly cpus: number
  readonly sandboxes: number
}

export interface PoolBudget {
  readonly limits: HostBudget
  readonly held: () => Held
  /** Whether one such sandbox could ever be held. */
  readonly admits: (charge: PoolCharge) => boolean
  /** Takes room if there is any. An urgent claim that finds none queues up and is rung; another is rung once, later. */
  readonly claim: (claimant: Claimant, urgent: boolean) => boolean
  /** The claimant no longer waits. */
  readonly withdraw: (claimant: Claimant) => void
  /** The teardown of a sandbox has begun: its room will come back. */
  readonly leaving: (charge: PoolCharge) => void
  /** It is gone. */
  readonly release: (charge: PoolCharge) => void
  /** Sandboxes may be asked of it until the returned function is called. */
  readonly join: (giver: Giver) => () => void
  /** A pool has one more that stands ready: is it needed elsewhere? */
  readonly rebalance: () => void
}

const none: Held = { memoryBytes: 0, cpus: 0, sandboxes: 0 }

const one = ({ cpus, memoryBytes }: PoolCharge): Held => ({ memoryBytes, cpus, sandboxes: 1 })

const sum = (a: Held, b: Held, sign: 1 | -1 = 1): Held => ({
  memoryBytes: a.memoryBytes + sign * b.memoryBytes,
  // Cores come in fractions; what was added and taken away must come back to what it was.
  cpus: Math.round((a.cpus + sign * b.cpus) * 1e6) / 1e6,
  sandboxes: a.sandboxes + sign * b.sandboxes
})

export const make = (limits: HostBudget): PoolBudget => {
  let held = none
  let leaving = none
  /** Urgent claimants, in the order in which they first found no room. */
  const queue: Array<Claimant> = []
  /** Refills that found no room. */
  const refills = new Set<Claimant>()
  const givers = new Set<Giver>()

  const within = ({ cpus, memoryBytes, sandboxes }: Held) =>
    memoryBytes <= (limits.memoryBytes ?? Infinity) && cpus <= (limits.cpus ?? Infinity) &&
    sandboxes <= (limits.sandboxes ?? Infinity)

  const wake = () => {
    if (queue[0] !== undefined) return queue[0].ring()
    for (const refill of refills) refill.ring()
    refills.clear()
  }

  const leave = (claimant: Claimant) => {
    refills.delete(claimant)
    const at = queue.indexOf(claimant)
    if (at >= 0) queue.splice(at, 1)
    return at === 0
  }

  /** Gives up just enough for the first in the queue, and nothing if that would not be enough. */
  const rebalance = () => {
    const first = queue[0]
    if (first === undefined) return
    let after = sum(sum(held, leaving, -1), one(first.charge))
    const chosen = new Map<Giver, number>()
    while (!within(after)) {
      let best: Giver | undefined
      let most = -Infinity
      for (const giver of givers) {
        const left = giver.idle() - (chosen.get(giver) ?? 0)
        if (left > 0 && left - giver.minimum > most) {
          best = giver
          most = left - giver.minimum
        }
      }
      if (best === undefined) return
      chosen.set(best, (chosen.get(best) ?? 0) + 1)
      after = sum(after, one(best.charge), -1)
    }
    for (const [giver, count] of chosen) for (let n = 0; n < count; n++) giver.giveUp()
  }

  return {
    limits,
    held: () => held,
    admits: (charge) => within(one(charge)),
    claim: (claimant, urgent) => {
      const after = sum(held, one(claimant.charge))
      const turn = queue.length === 0 || (urgent && queue[0] === claimant)
      if (turn && within(after)) {
        held = after
        if (leave(claimant)) wake()
        return true
      }
      if (urgent) {
        if (!queue.includes(claimant)) queue.push(claimant)
        rebalance()
      } else refills.add(claimant)
      return false
    },
    withdraw: (claimant) => {
      if (leave(claimant)) wake()
    },
    leaving: (charge) => {
      leaving = sum(leaving, one(charge))
    },
    release: (charge) => {
      held = sum(held, one(charge), -1)
      leaving = sum(leaving, one(charge), -1)
      wake()
    },
    join: (giver) => {
      givers.add(giver)
      return () => givers.delete(giver)
    },
    rebalance
  }
}
