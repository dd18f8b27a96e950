/** SIGINT and SIGTERM for one command: the first asks, the second insists, the third ends the process at once. */
import { Deferred, Effect, Queue, type Scope } from "effect"
import { constants } from "node:os"
import { signalCode } from "./ExitCode.ts"

export type StopSignal = "SIGINT" | "SIGTERM"

export interface Signals {
  readonly first: Effect.Effect<StopSignal>
  readonly second: Effect.Effect<StopSignal>
}

/** Takes the signals over for as long as the scope lives; outside of it they end the process, as they usually do. */
export const take: Effect.Effect<Signals, never, Scope.Scope> = Effect.gen(function*() {
  const waiting = [yield* Deferred.make<StopSignal>(), yield* Deferred.make<StopSignal>()] as const
  let count = 0
  const onSignal = (signal: StopSignal) => {
    const next = waiting[count++]
    // The watchdog kills what still runs, the next worker's janitor removes the rest.
    if (next === undefined) process.exit(signalCode(constants.signals[signal]))
    Deferred.doneUnsafe(next, Effect.succeed(signal))
  }
  yield* Effect.acquireRelease(
    Effect.sync(() => {
      process.on("SIGINT", onSignal).on("SIGTERM", onSignal)
    }),
    () =>
      Effect.sync(() => {
        process.off("SIGINT", onSignal).off("SIGTERM", onSignal)
      })
  )
  return { first: Deferred.await(waiting[0]), second: Deferred.await(waiting[1]) }
})

/**
 * Takes SIGHUP over, which else would end the process, for as long as the scope lives. Gives what waits for the next
 * one; several that nobody waited for are one.
 */
export const hangups: Effect.Effect<Effect.Effect<void>, never, Scope.Scope> = Effect.gen(function*() {
  const queue = yield* Queue.sliding<void>(1)
  const onHangup = () => void Queue.offerUnsafe(queue, undefined)
  yield* Effect.acquireRelease(
    Effect.sync(() => void process.on("SIGHUP", onHangup)),
    () => Effect.sync(() => void process.off("SIGHUP", onHangup))
  )
  return Queue.take(queue)
})

/** Interrupts the effect at the first signal, so that its scopes close. For commands that have nothing to finish. */
export const interruptible = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.scoped(
    Effect.flatMap(take, ({ first }) => Effect.raceFirst(effect, Effect.andThen(first, Effect.interrupt)))
  ) as Effect.Effect<A, E, R>
