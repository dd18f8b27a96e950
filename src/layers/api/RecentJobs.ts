/**
 * What a caller that looks again and again is told from memory: the record of a job as it was read less than a second ago,
 * if nothing has happened to it since. A look costs the journal's thread and this one some 60 µs otherwise (measured).
 */
import { Effect, Exit } from "effect"
import type { InstanceId, JobKey } from "../../schemas/Ids.ts"
import { keyText } from "../../schemas/Ids.ts"
import type { JobRecord } from "../journal/Journal.ts"
import { monotonicMs } from "../Now.ts"

/** Milliseconds. What others do to a job is seen after that at the latest. */
const FRESH = 1000
const mostRemembered = 10_000

export interface RecentJobs {
  /** As it was read, or as `read` says now. */
  readonly get: <E>(key: JobKey, read: Effect.Effect<JobRecord, E>) => Effect.Effect<JobRecord, E>
  /** Something has happened to the job. */
  readonly forget: (key: JobKey) => void
}

/** `instance`: this worker. Of a job that runs elsewhere nothing is heard here, so it is read each time. */
export const make = (instance: InstanceId | undefined): RecentJobs => {
  const records = new Map<string, { readonly record: JobRecord; readonly readMs: number }>()
  /** Under way, the latest one of each job. */
  const looks = new Map<string, object>()
  const isOurs = ({ instance: holder, state }: JobRecord) =>
    state === "ended" || (state === "running" && holder !== undefined && holder === instance)
  return {
    get: (key, read) =>
      Effect.flatMap(monotonicMs, (now) => {
        const name = keyText(key)
        const known = records.get(name)
        if (known !== undefined && now - known.readMs < FRESH) return Effect.succeed(known.record)
        records.delete(name)
        const look = {}
        looks.set(name, look)
        return Effect.onExit(read, (exit) =>
          Effect.sync(() => {
            // Something happened while it was read, or another look will tell.
            if (looks.get(name) !== look) return
            // Also of what is not there: anybody can ask for any number of ids.
            looks.delete(name)
            if (Exit.isFailure(exit) || !isOurs(exit.value)) return
            if (records.size >= mostRemembered) records.clear()
            records.set(name, { record: exit.value, readMs: now })
          }))
      }),
    forget: (key) => {
      looks.delete(keyText(key))
      records.delete(keyText(key))
    }
  }
}
