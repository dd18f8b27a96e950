/** Signs of life of sandboxes that stand ready. What is learned after one was taken is its taker's to find out. */
import { Effect, Exit, Fiber } from "effect"
import type { Sandbox, SandboxLost } from "../layers/sandbox/Sandbox.ts"
import type { Warm } from "./PoolStock.ts"

/** A driver that notices by itself that a sandbox is lost tells it here; of the others the next check finds out. */
export interface Watched extends Sandbox {
  /** Ends when the sandbox is lost, and then at once. */
  readonly lost?: Effect.Effect<SandboxLost>
}

/** Called with the reason; tells whether anything had to be done. */
export type OnLost = (warm: Warm, reason: string) => Effect.Effect<void>

/** Hears of a loss at once, as long as the sandbox's scope is open. */
export const watch = (warm: Warm, onLost: OnLost): Effect.Effect<void> => {
  const { lost }: Watched = warm.sandbox
  if (lost === undefined) return Effect.void
  return Effect.flatMap(lost, ({ reason }) => onLost(warm, reason)).pipe(
    Effect.forkIn(warm.scope, { startImmediately: true }),
    Effect.asVoid
  )
}

/**
 * Asks the guest something harmless: any answer but that it is lost will do. Runs beside the caller. A question that
 * is not answered in time is not taken back while somebody uses the sandbox: an answer to a question that was taken
 * back would be taken for nonsense, and lose it.
 */
export const check = (warm: Warm, limitMs: number, onLost: OnLost, done: () => void): Effect.Effect<void> =>
  Effect.gen(function*() {
    const asking = yield* Effect.forkIn(Effect.exit(warm.sandbox.signal(0, "main")), warm.scope, {
      startImmediately: true
    })
    const answer = yield* Effect.timeoutOption(Fiber.join(asking), limitMs)
    done()
    if (answer._tag === "None") return yield* onLost(warm, `it did not answer within ${limitMs} ms`)
    const error = Exit.findErrorOption(answer.value)
    if (error._tag === "Some" && error.value._tag === "SandboxLost") yield* onLost(warm, error.value.reason)
  }).pipe(
    Effect.forkIn(warm.scope, { startImmediately: true }),
    Effect.asVoid,
    (started) =>
      Effect.suspend(() => {
        warm.checkedAtMs = Infinity
        return started
      })
  )
