/** The passing of the test's own time, for doors that answer from other threads too. */
import { Effect } from "effect"
import { TestClock } from "effect/testing"

/** Lets what runs beside the test come as far as it does without time passing. */
const turns = Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 1)))

/** In small steps, so that everybody does what is due in between. */
export const pass = (millis: number) =>
  Effect.andThen(TestClock.adjust(20), turns).pipe(Effect.repeat({ times: Math.ceil(millis / 20) }), Effect.asVoid)

/** Waits for something that comes within a few milliseconds of the test's time. */
export const soon = Effect.fnUntraced(function*<A, E>(effect: Effect.Effect<A, E>) {
  const fiber = yield* Effect.forkChild(effect, { startImmediately: true })
  while (fiber.pollUnsafe() === undefined) yield* Effect.andThen(turns, TestClock.adjust(1))
  return yield* fiber.pollUnsafe() ?? Effect.never
})
