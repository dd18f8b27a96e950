/** What is made once and used by all: unlike `Effect.cached`, a failure is told to who met it and not kept. */
import { Effect, Option, Semaphore } from "effect"

/** Runs the effect until it has succeeded once, one at a time; from then on gives what it gave. */
export const once = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<Effect.Effect<A, E, R>> =>
  Effect.sync(() => {
    const turn = Semaphore.makeUnsafe(1)
    let made = Option.none<A>()
    const known = Effect.suspend(() =>
      Option.isSome(made) ? Effect.succeed(made.value) : Effect.tap(effect, (value) =>
        Effect.sync(() => {
          made = Option.some(value)
        }))
    )
    return Effect.suspend(() =>
      Option.isSome(made) ? Effect.succeed(made.value) : Semaphore.withPermits(turn, 1)(known)
    )
  })
