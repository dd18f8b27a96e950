/** How busy and how late this process' event loop was since it was asked last. */
import { Effect } from "effect"
import { monitorEventLoopDelay, performance } from "node:perf_hooks"

/** Since the last reading. Seconds; utilisation is a share of 1. */
export interface LoopReading {
  readonly p50: number
  readonly p99: number
  readonly max: number
  readonly utilization: number
}

/** A timer that ought to fire so often; what Node measures includes this time itself. At 20 ms it costs twice the CPU. */
const resolutionMs = 50

const delayOf = (nanos: number) => Math.max(0, nanos / 1e9 - resolutionMs / 1000)

/** Measures until the scope closes; each reading begins a new window. */
export const make = Effect.gen(function*() {
  const histogram = monitorEventLoopDelay({ resolution: resolutionMs })
  yield* Effect.acquireRelease(Effect.sync(() => histogram.enable()), () => Effect.sync(() => histogram.disable()))
  let last = performance.eventLoopUtilization()
  const read = Effect.sync((): LoopReading => {
    const now = performance.eventLoopUtilization()
    const { utilization } = performance.eventLoopUtilization(now, last)
    last = now
    const isEmpty = histogram.count === 0
    const reading = {
      p50: isEmpty ? 0 : delayOf(histogram.percentile(50)),
      p99: isEmpty ? 0 : delayOf(histogram.percentile(99)),
      max: isEmpty ? 0 : delayOf(histogram.max),
      utilization
    }
    histogram.reset()
    return reading
  })
  // After a turn: a delay that ends just now has been measured by then.
  return Effect.andThen(Effect.yieldNow, read)
})
