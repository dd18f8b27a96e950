/** Finalizers that always end: what cannot be released in time is left to the janitor, said in the log. */
import type { Duration } from "effect"
import { Effect, Fiber } from "effect"

/**
 * Runs a release with a deadline and never fails. Forked, because a plain timeout waits for uninterruptible work
 * inside the finalizer (measured on Effect 4.1.0).
 */
export const within = (what: string, limit: Duration.Input) => <E, R>(release: Effect.Effect<unknown, E, R>) =>
  Effect.forkDetach(release, { startImmediately: true }).pipe(
    Effect.flatMap(Fiber.join),
    Effect.timeout(limit),
    Effect.ignoreCause({ log: "Warn", message: `${what} not released in time, left to the janitor` })
  )
