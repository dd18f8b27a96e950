/** How many should stand ready: grows at once with what arrives, shrinks by one in each period. */
import type { PoolConfig } from "../schemas/PoolConfig.ts"
import type { PoolDemand } from "./PoolDemand.ts"

export interface PoolSize {
  readonly target: () => number
  /** Looks again; true if one that stands ready should go. Times are milliseconds of a monotonic clock. */
  readonly resize: (nowMs: number, idle: number) => boolean
  /** When it could shrink next, if it could. */
  readonly shrinksAtMs: (idle: number) => ReadonlyArray<number>
}

export const make = (config: PoolConfig, demand: PoolDemand, startedAtMs: number): PoolSize => {
  let target = config.minimum
  let shrunkAtMs = startedAtMs
  return {
    target: () => target,
    resize: (nowMs, idle) => {
      const wish = demand.wish(nowMs, config.minimum, config.maximum)
      if (wish >= target && idle <= wish) shrunkAtMs = nowMs
      const due = nowMs >= shrunkAtMs + config.shrinkMs
      if (due) shrunkAtMs = nowMs
      target = Math.max(wish, due ? target - 1 : target)
      return due && idle > target
    },
    shrinksAtMs: (idle) => target > config.minimum || idle > target ? [shrunkAtMs + config.shrinkMs] : []
  }
}
