/** A pool's trouble: since when it makes no sandboxes, when it may try again, and what the log has been told of it. */
import { Effect, Random } from "effect"
import type { ProvisionFailed } from "../layers/sandbox/Sandbox.ts"
import type { PoolConfig } from "../schemas/PoolConfig.ts"

/** A driver that is missing or too old, an image nobody has built, will not be there in ten seconds: who waits is told at once. */
const isLasting = (error: ProvisionFailed) => error.isLasting === true || error.step === "driver"

/** Failures in a row. Times are milliseconds of a monotonic clock. */
interface Trouble {
  readonly sinceMs: number
  readonly lastAtMs: number
  readonly retryAtMs: number
  readonly failures: number
  /** How often the pause was doubled. */
  readonly doubled: number
  readonly error: ProvisionFailed
  readonly told: boolean
}

export interface PoolFault {
  /** The last failure, until a sandbox is made. */
  readonly error: () => ProvisionFailed | undefined
  readonly forMs: (nowMs: number) => number
  /** Whether the pause after the last failure is over; always, without one. */
  readonly mayTry: (nowMs: number) => boolean
  /** What jobs are answered with instead of waiting: it has lasted too long. */
  readonly answer: (nowMs: number) => ProvisionFailed | undefined
  /** Times at which one of these answers changes. */
  readonly changesAtMs: () => ReadonlyArray<number>
  /**
   * One failure more, of an attempt begun then. Attempts side by side count once for the pause: it grows only with one
   * that began after the last failure.
   */
  readonly failed: (error: ProvisionFailed, beganMs: number, nowMs: number) => Effect.Effect<void>
  readonly recovered: Effect.Effect<void>
  /** Says in the log, once, that jobs are being answered. */
  readonly tell: (nowMs: number) => Effect.Effect<void>
}

export const make = (name: string, config: PoolConfig): PoolFault => {
  const { backoffMaxMs, backoffMs, failFastMs } = config
  let trouble: Trouble | undefined
  const answersAtMs = ({ error, sinceMs }: Trouble) => isLasting(error) ? sinceMs : sinceMs + failFastMs
  const answer = (nowMs: number) => trouble !== undefined && nowMs >= answersAtMs(trouble) ? trouble.error : undefined
  return {
    error: () => trouble?.error,
    forMs: (nowMs) => nowMs - (trouble?.sinceMs ?? nowMs),
    mayTry: (nowMs) => nowMs >= (trouble?.retryAtMs ?? nowMs),
    answer,
    changesAtMs: () => trouble === undefined ? [] : [trouble.retryAtMs, answersAtMs(trouble)],
    failed: Effect.fnUntraced(function*(error, beganMs, nowMs) {
      const before = trouble
      if (before !== undefined && beganMs < before.lastAtMs) {
        trouble = { ...before, failures: before.failures + 1, error }
        return
      }
      const doubled = before === undefined ? 0 : before.doubled + 1
      const pauseMs = Math.min(backoffMaxMs, backoffMs * 2 ** Math.min(doubled, 30)) * (1 - (yield* Random.next) / 2)
      trouble = {
        sinceMs: before?.sinceMs ?? nowMs,
        lastAtMs: nowMs,
        retryAtMs: nowMs + pauseMs,
        failures: (before?.failures ?? 0) + 1,
        doubled,
        error,
        told: before?.told ?? false
      }
      if (before !== undefined) return
      yield* Effect.logWarning(
        `${name}: ${error.message.replace(/[^.!?]$/, "$&.")} Tries again in ${
          Math.round(pauseMs)
        } ms, then less and less often`
      )
    }),
    recovered: Effect.suspend(() => {
      if (trouble === undefined) return Effect.void
      const { failures } = trouble
      trouble = undefined
      return Effect.logInfo(`${name} makes sandboxes again, after ${failures} failures`)
    }),
    tell: (nowMs) =>
      Effect.suspend(() => {
        const error = answer(nowMs)
        if (error === undefined || trouble === undefined || trouble.told) return Effect.void
        const forMs = Math.round(nowMs - trouble.sinceMs)
        trouble = { ...trouble, told: true }
        return Effect.logError(
          `${name} has made no sandbox for ${forMs} ms: its jobs fail until it does. ${error.message}`
        )
      })
  }
}
