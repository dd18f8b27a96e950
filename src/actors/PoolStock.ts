/**
 * Sandboxes that stand ready, oldest first, and takers that wait, first come first: never both at once. Synchronous, so
 * that no sandbox is ever with two, or with nobody.
 */
import { Deferred, Exit, type Scope } from "effect"
import type { ProvisionFailed, Sandbox } from "../layers/sandbox/Sandbox.ts"

/** A sandbox nobody has used. Its scope is its life. Times are milliseconds of a monotonic clock. */
export interface Warm {
  readonly sandbox: Sandbox
  readonly scope: Scope.Closeable
  /** From then on it is not handed out. */
  readonly expiresAtMs: number
  /** When it last gave a sign of life; a check that runs sets it to infinity. */
  checkedAtMs: number
}

/** Somebody who asked while none stood ready. */
export interface Waiter {
  /** Completed last of all: whoever waits goes on inside that call. */
  readonly answer: Deferred.Deferred<Warm, ProvisionFailed>
  given: Warm | undefined
}

export interface PoolStock {
  readonly idle: ReadonlyArray<Warm>
  readonly waiting: () => number
  /** To whoever waits longest; else it stands ready. True if somebody has waited for it. */
  readonly add: (warm: Warm) => boolean
  /** The oldest one. */
  readonly pick: () => Warm | undefined
  /** False if it does not stand ready any more. */
  readonly remove: (warm: Warm) => boolean
  readonly wait: () => Waiter
  /** Waits no longer. What it was given and has not got goes back to the caller. */
  readonly leave: (waiter: Waiter) => Warm | undefined
  /** Everybody who waits is answered with this. */
  readonly refuse: (error: ProvisionFailed) => void
}

export const make = (): PoolStock => {
  const idle: Array<Warm> = []
  let waiters: Array<Waiter> = []
  const remove = (warm: Warm) => {
    const at = idle.indexOf(warm)
    if (at >= 0) idle.splice(at, 1)
    return at >= 0
  }
  return {
    idle,
    waiting: () => waiters.length,
    add: (warm) => {
      const waiter = waiters.shift()
      if (waiter === undefined) {
        idle.push(warm)
        return false
      }
      waiter.given = warm
      Deferred.doneUnsafe(waiter.answer, Exit.succeed(warm))
      return true
    },
    pick: () => idle.shift(),
    remove,
    wait: () => {
      const waiter: Waiter = { answer: Deferred.makeUnsafe(), given: undefined }
      waiters.push(waiter)
      return waiter
    },
    leave: (waiter) => {
      const at = waiters.indexOf(waiter)
      if (at >= 0) waiters.splice(at, 1)
      return waiter.given
    },
    refuse: (error) => {
      const refused = waiters
      waiters = []
      for (const { answer } of refused) Deferred.doneUnsafe(answer, Exit.fail(error))
    }
  }
}
