/** The time as it is written down: a clock may give fractions, a record has whole milliseconds since 1970. */
import { Clock, Effect } from "effect"

export const nowMs: Effect.Effect<number> = Effect.map(Clock.currentTimeMillis, Math.floor)

/** Nanoseconds since some moment, for spans of time: the date may be set while we measure, this only goes on. */
export const monotonicNanos: Effect.Effect<bigint> = Clock.clockWith((clock) => clock.monotonicTimeNanos)

/** The same in milliseconds. */
export const monotonicMs: Effect.Effect<number> = Effect.map(monotonicNanos, (nanos) => Number(nanos) / 1e6)
