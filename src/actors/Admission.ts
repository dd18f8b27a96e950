/**
 * Who runs next: so many jobs at once, the levels by their weights, the owners of a level in turns, and no owner more
 * than its share. Synchronous, so a slot is never half given.
 */
import { Deferred, Effect } from "effect"
import { priorities, type Priority, type PriorityWeights } from "../schemas/Terms.ts"
import * as Turns from "../schemas/Turns.ts"

/** What decides about a job's turn. */
export interface Applicant {
  readonly priority: Priority
  readonly owner: string
}

export interface AdmissionLimits {
  /** Jobs that run at once. */
  readonly slots: number
  readonly weights: PriorityWeights
  /** Jobs of one owner that run at once; absent: no bound but the slots. */
  readonly ownerSlots?: number
}

export interface AdmissionStats {
  readonly slots: number
  readonly running: number
  readonly waiting: Readonly<Record<Priority, number>>
}

export interface Admission {
  /** Waits for a slot and holds it for as long as the effect takes. Whoever is interrupted leaves the line. */
  readonly admit: (applicant: Applicant) => <A, E, R>(life: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  /** New limits from now on. With fewer slots, those that run go on, and nobody follows until there is room. */
  readonly configure: (limits: AdmissionLimits) => Effect.Effect<void>
  readonly stats: Effect.Effect<AdmissionStats>
}

interface Waiter extends Applicant {
  readonly called: Deferred.Deferred<void>
  isCalled: boolean
}

/** Waiters of one level, by owner. An owner that was served goes to the end of the map. */
interface Level extends Turns.Lane {
  readonly priority: Priority
  readonly owners: Map<string, Set<Waiter>>
}

export const make = (limits: AdmissionLimits): Admission => {
  let { ownerSlots = Number.POSITIVE_INFINITY, slots } = limits
  let levels = levelsOf(limits.weights)
  let running = 0
  const runningOf = new Map<string, number>()

  const mayRun = (owner: string) => (runningOf.get(owner) ?? 0) < ownerSlots
  const firstOf = ({ owners }: Level) => {
    for (const [owner, waiters] of owners) {
      if (mayRun(owner)) return waiters
    }
    return undefined
  }

  const leaveLine = (waiter: Waiter) => {
    const owners = levels.find(({ priority }) => priority === waiter.priority)?.owners
    const waiters = owners?.get(waiter.owner)
    waiters?.delete(waiter)
    if (waiters?.size === 0) owners?.delete(waiter.owner)
  }

  const call = (waiter: Waiter) => {
    running += 1
    runningOf.set(waiter.owner, (runningOf.get(waiter.owner) ?? 0) + 1)
    waiter.isCalled = true
    Deferred.doneUnsafe(waiter.called, Effect.void)
  }

  /** Calls one if there is room, and says whether it did. */
  const callNext = () => {
    if (running >= slots) return false
    const level = Turns.next(levels.filter((level) => firstOf(level) !== undefined))
    const waiters = level === undefined ? undefined : firstOf(level)
    const [waiter] = waiters ?? []
    if (level === undefined || waiters === undefined || waiter === undefined) return false
    waiters.delete(waiter)
    level.owners.delete(waiter.owner)
    if (waiters.size > 0) level.owners.set(waiter.owner, waiters)
    call(waiter)
    return true
  }
  const fill = () => {
    for (let called = callNext(); called;) called = callNext()
  }

  const release = ({ owner }: Applicant) => {
    running -= 1
    const left = (runningOf.get(owner) ?? 1) - 1
    if (left === 0) runningOf.delete(owner)
    else runningOf.set(owner, left)
    fill()
  }

  const join = ({ owner, priority }: Applicant) => {
    const waiter: Waiter = { owner, priority, called: Deferred.makeUnsafe<void>(), isCalled: false }
    const owners = levels.find((level) => level.priority === priority)?.owners
    owners?.set(owner, (owners.get(owner) ?? new Set()).add(waiter))
    fill()
    return waiter
  }

  const leave = (waiter: Waiter) => waiter.isCalled ? release(waiter) : leaveLine(waiter)

  return {
    admit: (applicant) => (life) =>
      Effect.uninterruptibleMask((restore) =>
        Effect.suspend(() => {
          const waiter = join(applicant)
          const turn = waiter.isCalled ? Effect.void : restore(Deferred.await(waiter.called))
          // Also when the call and an interruption meet: then the slot is given back here.
          return Effect.andThen(turn, restore(life)).pipe(Effect.ensuring(Effect.sync(() => leave(waiter))))
        })
      ),
    configure: (next) =>
      Effect.sync(() => {
        ownerSlots = next.ownerSlots ?? Number.POSITIVE_INFINITY
        slots = next.slots
        levels = levelsOf(next.weights, levels)
        fill()
      }),
    stats: Effect.sync(() => {
      const waiting = { high: 0, normal: 0, low: 0 }
      for (const { owners, priority } of levels) {
        for (const waiters of owners.values()) waiting[priority] += waiters.size
      }
      return { slots, running, waiting }
    })
  }
}

/** Whoever waits keeps its place. */
const levelsOf = (weights: PriorityWeights, known: ReadonlyArray<Level> = []): ReadonlyArray<Level> =>
  priorities.map((priority) => ({
    priority,
    weight: weights[priority],
    credit: 0,
    owners: known.find((level) => level.priority === priority)?.owners ?? new Map()
  }))
