/** Waiting until nothing is left: kernels and clusters let go a moment later. */
import { Effect } from "effect"
import { monotonicMs } from "../layers/Now.ts"
import { type Mismatch, same } from "./Case.ts"
import { ConformanceHost } from "./ConformanceHost.ts"

const SECONDS = 15

/** Fails when something is still there after some seconds. */
export const nothingLeft: Effect.Effect<void, Mismatch, ConformanceHost> = Effect.gen(function*() {
  const { leftovers, slowness } = yield* ConformanceHost
  const deadline = (yield* monotonicMs) + SECONDS * 1000 * slowness
  let left = yield* leftovers
  while (left.length > 0 && (yield* monotonicMs) < deadline) {
    yield* Effect.sleep("50 millis")
    left = yield* leftovers
  }
  yield* same(`what is left after ${SECONDS * slowness} seconds`, left, [])
})
