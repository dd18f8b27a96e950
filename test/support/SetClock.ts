/** A clock whose date somebody sets while programs run: an hour on, an hour back. Sleeps and spans of time are real. */
import { Clock, Effect } from "effect"

export interface SetClock {
  readonly clock: Clock.Clock
  /** Milliseconds that the date is put forward, or back. */
  readonly jump: (millis: number) => void
}

/** Over the clock that is there: `TestClock`'s, or the real one. */
export const make: Effect.Effect<SetClock> = Clock.clockWith((under) =>
  Effect.sync(() => {
    let offset = 0
    const millis = () => under.currentTimeMillisUnsafe() + offset
    const nanos = () => under.currentTimeNanosUnsafe() + BigInt(offset) * 1_000_000n
    // Whatever else it can do, as TestClock can be adjusted, it still can.
    const clock: Clock.Clock = Object.assign(Object.create(under) as Clock.Clock, {
      currentTimeMillisUnsafe: millis,
      currentTimeMillis: Effect.sync(millis),
      currentTimeNanosUnsafe: nanos,
      currentTimeNanos: Effect.sync(nanos)
    })
    return { clock, jump: (by) => void (offset += by) }
  })
)
