import { Duration, Effect, Option } from "effect"

/** What a broker that answers needs by far; for one that does not, the socket's end says it all. */
const limit = Duration.seconds(1)

/**
 * One last request to the broker before something closes. Never fails, always ends. Unlike what `Release` is for, it
 * leaves nothing behind if it does not come through: the broker frees all of a connection with its socket.
 */
export const say = (what: string, request: () => Promise<unknown>, elseWhen: Effect.Effect<unknown>) =>
  Effect.raceFirst(Effect.promise(() => request().catch(() => {})), elseWhen).pipe(
    Effect.timeoutOption(limit),
    Effect.tap((answer) => Option.isNone(answer) ? Effect.logDebug(`no answer in time to ${what}`) : Effect.void),
    Effect.asVoid
  )
