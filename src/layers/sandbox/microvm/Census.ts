/** Follows the life of each machine: every change of state is a line for who debugs, a number for who watches. */
import { Clock, Deferred, Effect, Exit, Metric } from "effect"
import type { SandboxId } from "../../../schemas/Ids.ts"
import { metrics } from "../../telemetry/Metrics.ts"
import { advance, begin, type Event, type State } from "./Lifecycle.ts"

const nowMs = Effect.map(Clock.Clock, (clock) => Number(clock.monotonicTimeNanosUnsafe()) / 1e6)

/** One machine. */
export interface Tracked {
  readonly state: () => State
  /** What cannot happen now changes nothing. */
  readonly happens: (event: Event) => Effect.Effect<void>
  /** Ends when it is not in this state, or not any more. */
  readonly leaves: (state: State) => Effect.Effect<void>
}

/** Counts of all machines of a driver. */
export const make = (driver: string) => {
  const counts = new Map<State, number>()
  const add = (state: State, one: number) => {
    const count = (counts.get(state) ?? 0) + one
    counts.set(state, count)
    return Metric.update(metrics.machines.series({ driver, state }), count)
  }
  return {
    /** Machines in each state now; those that are gone are not kept. */
    counts: (): Readonly<Partial<Record<State, number>>> => Object.fromEntries(counts),
    begin: Effect.fnUntraced(function*(id: () => SandboxId | string) {
      let life = begin(yield* nowMs)
      let changed = Deferred.makeUnsafe<void>()
      yield* add(life.state, 1)
      const tracked: Tracked = {
        state: () => life.state,
        leaves: (state) =>
          Effect.whileLoop({
            while: () => life.state === state,
            body: () => Deferred.await(changed),
            step: () => {}
          }),
        happens: Effect.fnUntraced(function*(event) {
          const step = advance(life, event, yield* nowMs)
          if (step === undefined) return
          life = step.life
          Deferred.doneUnsafe(changed, Exit.void)
          changed = Deferred.makeUnsafe()
          yield* add(step.left, -1)
          if (step.life.state !== "gone") yield* add(step.life.state, 1)
          yield* Metric.update(metrics.machineState.series({ driver, state: step.left }), step.lastedMs / 1000)
          yield* Effect.logDebug(
            `machine ${id()}: ${step.left} -> ${step.life.state} after ${Math.round(step.lastedMs)} ms (${event})`
          )
        })
      }
      return tracked
    })
  }
}
export type Census = ReturnType<typeof make>
