/** The time as it is written down: a clock may give fractions, a record has whole milliseconds since 1970. */
import { Clock, Effect } from "effect"

export const nowMs: Effect.Effect<number> = Effect.map(Clock.currentTimeMillis, Math.floor)
