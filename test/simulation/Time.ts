/**
 * Virtual time: one queue of what goes on at once, one heap of what goes on later. Nothing here is asynchronous, so a
 * run is a function of its seed, and time jumps from one timer to the next.
 */
import { Clock, Context, Duration, Effect, Random, Scheduler } from "effect"
import type { Dice } from "./Dice.ts"

/** Whose doing something is. What belongs to one that has died never happens. */
export interface Party {
  readonly name: string
  isAlive: boolean
  /** Until then nothing of it goes on, as in a process that was stopped or has no memory; after it all that was due. */
  stalledUntilMs: number
}

interface Timer {
  readonly atMs: number
  readonly order: number
  readonly party: Party
  run: (() => void) | undefined
}

export interface Time {
  /** Milliseconds since 1970. */
  readonly now: () => number
  /** Later, in whole milliseconds as Node's timers, if the party still lives then. The returned function takes it back. */
  readonly after: (party: Party, ms: number, run: () => void) => () => void
  /** Clock, scheduler and randomness for the fibers of a party. */
  readonly context: (party: Party) => Context.Context<never>
  /** Lets time pass until `isOver`, at most so long. False: it was not over then. */
  readonly pass: (mostMs: number, isOver?: () => boolean) => boolean
}

/** The simulated day begins here, so that times of day are real ones. */
const BEGIN_MS = Date.UTC(2026, 0, 5)
/** So much at one moment is a loop that never waits. */
const MOST_AT_ONCE = 2_000_000

const isBefore = (a: Timer, b: Timer) => a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order)

/** A binary heap: the earliest first, in the order of making among equals. */
const makeHeap = () => {
  const all: Array<Timer> = []
  return {
    first: () => all[0],
    add: (timer: Timer) => {
      let at = all.push(timer) - 1
      while (at > 0) {
        const above = (at - 1) >>> 1
        const parent = all[above]
        if (parent === undefined || !isBefore(timer, parent)) break
        all[at] = parent
        at = above
      }
      all[at] = timer
    },
    take: () => {
      const first = all[0]
      const last = all.pop()
      if (last === undefined || all.length === 0) return first
      let at = 0
      while (true) {
        let below = 2 * at + 1
        const [left, right] = [all[below], all[below + 1]]
        if (left === undefined) break
        if (right !== undefined && isBefore(right, left)) below += 1
        const child = all[below]
        if (child === undefined || !isBefore(child, last)) break
        all[at] = child
        at = below
      }
      all[at] = last
      return first
    }
  }
}

export const make = (dice: Dice): Time => {
  const heap = makeHeap()
  let tasks: Array<{ readonly party: Party; readonly run: () => void }> = []
  let nowMs = BEGIN_MS
  let order = 0

  const after: Time["after"] = (party, ms, run) => {
    const timer: Timer = { atMs: nowMs + Math.max(0, Math.ceil(ms)), order: order++, party, run }
    heap.add(timer)
    return () => {
      timer.run = undefined
    }
  }

  const atOnce = (isOver: () => boolean) => {
    let done = 0
    while (tasks.length > 0) {
      const now = tasks
      tasks = []
      for (const { party, run } of now) {
        if (party.stalledUntilMs > nowMs) after(party, party.stalledUntilMs - nowMs, run)
        else if (party.isAlive) run()
        if (++done > MOST_AT_ONCE) throw new Error(`something goes on for ever at ${nowMs - BEGIN_MS} ms`)
      }
      if (isOver()) return
    }
  }

  const clockOf = (party: Party): Clock.Clock => {
    const millis = () => nowMs
    const nanos = () => BigInt(nowMs) * 1_000_000n
    return {
      currentTimeMillisUnsafe: millis,
      currentTimeMillis: Effect.sync(millis),
      currentTimeNanosUnsafe: nanos,
      currentTimeNanos: Effect.sync(nanos),
      monotonicTimeNanosUnsafe: nanos,
      monotonicTimeNanos: Effect.sync(nanos),
      sleep: (duration) => {
        const ms = Duration.toMillis(duration)
        if (!Number.isFinite(ms)) return Effect.never
        return Effect.callback((resume) => {
          const cancel = after(party, ms, () => resume(Effect.void))
          return Effect.sync(cancel)
        })
      }
    }
  }

  const schedulerOf = (party: Party): Scheduler.Scheduler => {
    const dispatcher: Scheduler.SchedulerDispatcher = {
      scheduleTask: (run) => void tasks.push({ party, run }),
      flush: () => {}
    }
    return {
      executionMode: "async",
      shouldYield: (fiber) => fiber.currentOpCount >= 2048,
      makeDispatcher: () => dispatcher
    }
  }

  return {
    now: () => nowMs,
    after,
    context: (party) =>
      Context.make(Clock.Clock, clockOf(party)).pipe(
        Context.add(Scheduler.Scheduler, schedulerOf(party)),
        Context.add(Random.Random, dice.service)
      ),
    pass: (mostMs, isOver = () => false) => {
      const endMs = nowMs + mostMs
      while (true) {
        atOnce(isOver)
        if (isOver()) return true
        const next = heap.first()
        if (next === undefined || next.atMs > endMs) {
          nowMs = endMs
          return false
        }
        heap.take()
        if (next.run === undefined || !next.party.isAlive) continue
        const { stalledUntilMs } = next.party
        if (stalledUntilMs > next.atMs) {
          // The same timer, so that it can still be taken back.
          heap.add(Object.assign(next, { atMs: stalledUntilMs, order: order++ }))
          continue
        }
        nowMs = next.atMs
        next.run()
      }
    }
  }
}

/** Hours, minutes and seconds of the simulated day. */
export const clockTime = (ms: number) => new Date(ms).toISOString().slice(11, 23)
