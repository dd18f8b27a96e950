/** For what must be written down before a job may go on. */
import { Duration, Effect, Schedule } from "effect"
import { JournalError } from "./Journal.ts"

/** The journal or its disk is away: nothing is lost by waiting, so this goes on until it is back. */
const untilItWorks = Schedule.exponential("50 millis").pipe(
  Schedule.modifyDelay(({ duration }) => Effect.succeed(Duration.min(duration, Duration.seconds(5)))),
  Schedule.jittered
)

/** Says once that it waits, and once that it goes on; between them at Debug. */
export const persist = <A, E>(
  what: string,
  operation: Effect.Effect<A, E>
): Effect.Effect<A, Exclude<E, JournalError>> =>
  Effect.suspend(() => {
    let waits = false
    return operation.pipe(
      Effect.tapError((error) => {
        if (!(error instanceof JournalError)) return Effect.void
        const told = waits ? Effect.logDebug(error.message) : Effect.logError(`${what} waits: ${error.message}`)
        waits = true
        return told
      }),
      Effect.retry({ schedule: untilItWorks, while: (error) => error instanceof JournalError }),
      Effect.tap(() => waits ? Effect.logInfo(`${what} went through`) : Effect.void)
    )
  }) as Effect.Effect<A, Exclude<E, JournalError>>
