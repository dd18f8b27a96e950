/**
 * Finds what dead workers of this host left and removes it: rows of the ledger, then their cgroups and directory, then
 * their claims. Touches only instances whose lock is free, and forgets one only when nothing of it is left.
 */
import { Effect, Metric, Schedule } from "effect"
import { Artefacts } from "../layers/artefacts/Artefacts.ts"
import { Cgroups } from "../layers/cgroup/Cgroup.ts"
import { Settings } from "../layers/config/Settings.ts"
import { Host } from "../layers/host/Host.ts"
import { Journal } from "../layers/journal/Journal.ts"
import { Ledger, type LedgerRow } from "../layers/ledger/Ledger.ts"
import { Log } from "../layers/log/Log.ts"
import { Drivers, Reapers } from "../layers/sandbox/Sandbox.ts"
import { metrics } from "../layers/telemetry/Metrics.ts"
import type { InstanceId } from "../schemas/Ids.ts"
import { Outbox } from "./Outbox.ts"

/** What one round did. */
export interface Swept {
  readonly instances: number
  readonly sandboxes: number
  readonly jobs: number
  /** Rows that could not be proven gone; they are tried again. */
  readonly left: number
}

const nothing: Swept = { instances: 0, sandboxes: 0, jobs: 0, left: 0 }

const add = (a: Swept, b: Swept): Swept => ({
  instances: a.instances + b.instances,
  sandboxes: a.sandboxes + b.sandboxes,
  jobs: a.jobs + b.jobs,
  left: a.left + b.left
})

/** Instances that left something and are dead: by directory, by ledger, by claim. */
const dead = Effect.gen(function*() {
  const host = yield* Host
  const journal = yield* Journal
  const known = new Set<InstanceId>([
    ...(yield* host.others),
    ...(yield* (yield* Ledger).rows()).map(({ instance }) => instance),
    // Those of other hosts have no lock here, and are judged by their leases: see Lapses.ts.
    ...(journal.scope === "host" ? yield* journal.holders : [])
  ])
  known.delete(host.instance)
  return yield* Effect.filter([...known], (instance) => Effect.map(host.isAlive(instance), (alive) => !alive))
})

const reap = Effect.fnUntraced(function*(row: LedgerRow) {
  const driver = (yield* Drivers).find(({ name }) => name === row.driver)
  const reapOne = driver?.reap ?? (yield* (yield* Reapers)(row.driver))
  if (reapOne === undefined) {
    yield* Effect.logWarning(
      `sandbox ${row.id} of ${row.instance} needs driver ${row.driver}, which this worker does not have`
    )
    return false
  }
  if (!(yield* reapOne(row))) return false
  yield* (yield* Ledger).strike(row)
  return true
})

const clearInstance = Effect.fnUntraced(function*(instance: InstanceId) {
  const host = yield* Host
  const cgroups = yield* Cgroups
  const rows = yield* (yield* Ledger).rows(instance)
  const gone = yield* Effect.forEach(rows, reap, { concurrency: 4 })
  const sandboxes = gone.filter(Boolean).length
  const left = rows.length - sandboxes
  if (left > 0) return { ...nothing, sandboxes, left }
  // No row is left, so no process of a job is: its jobs may run again.
  const jobs = yield* (yield* Journal).abandon(instance)
  const recorded = yield* host.cgroupsOf(instance)
  yield* cgroups.forInstance(instance, recorded).remove
  yield* host.forget(instance)
  return { instances: 1, sandboxes, jobs, left: 0 }
})

const counted = Effect.fnUntraced(function*({ left, ...removed }: Swept) {
  yield* Metric.update(metrics.janitorSweeps.series({}), 1)
  yield* Metric.update(metrics.janitorLeft.series({}), left)
  yield* Effect.forEach(
    Object.entries(removed),
    ([kind, count]) => Metric.update(metrics.janitorRemoved.series({ kind }), count),
    { discard: true }
  )
})

/** One round. What cannot be removed now is logged and left for the next. */
export const sweep = Effect.gen(function*() {
  const instances = yield* dead
  const swept = yield* Effect.forEach(instances, (instance) =>
    clearInstance(instance).pipe(
      Effect.catchCause((cause) =>
        Effect.as(Effect.logWarning(`the leavings of worker ${instance} could not be removed`, cause), {
          ...nothing,
          left: 1
        })
      )
    ))
  const total = swept.reduce(add, nothing)
  yield* counted(total)
  if (total.instances + total.sandboxes > 0) {
    yield* Effect.logInfo("removed what dead workers left").pipe(Effect.annotateLogs({ ...total }))
  }
  return total
})

/**
 * What was kept long enough: a few ended jobs and dead letters, and logs and artefacts of jobs that have no row any
 * more. A log belongs to its row as long as there is one, and in any case for as long as an ended job is kept.
 */
export const prune = Effect.gen(function*() {
  const { retention: { dedupeMs, jobsMs } } = yield* Settings
  const journal = yield* Journal
  const log = yield* Log
  const rows = yield* journal.prune
  const idleMs = Math.max(dedupeMs, jobsMs)
  const logs = yield* log.prune(idleMs, journal.unknown)
  const artefacts = yield* (yield* Artefacts).prune(idleMs, journal.unknown)
  if (rows + logs + artefacts > 0) {
    yield* Effect.logDebug("removed what was kept long enough").pipe(Effect.annotateLogs({ rows, logs, artefacts }))
  }
})

/** A round now and then, as long as the worker lives; also tells what a dead worker's outbox still owed. */
export const rounds = Effect.gen(function*() {
  const outbox = yield* Outbox
  const round = Effect.all([
    Effect.ignore(Effect.andThen(sweep, outbox.sweep), { log: "Warn", message: "a janitor's round failed" }),
    Effect.ignore(prune, { log: "Warn", message: "what is old could not be removed" })
  ], { discard: true })
  yield* round.pipe(
    Effect.schedule(Schedule.spaced("30 seconds"))
  )
})
