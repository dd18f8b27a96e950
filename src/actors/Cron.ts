/**
 * Starts jobs by the clock. The id of a job is its schedule's name and the moment it is for, so workers that share a
 * journal all submit the same job, which is one; workers with journals of their own fire once each.
 */
import { Cron, DateTime, Effect } from "effect"
import { Settings } from "../layers/config/Settings.ts"
import { Control } from "../layers/control/Control.ts"
import { Functions } from "../layers/functions/Functions.ts"
import { requestHash } from "../layers/intake/RequestHash.ts"
import { nowMs } from "../layers/Now.ts"
import { cronOf, jobOf, type Schedule } from "../schemas/Cron.ts"

/** Milliseconds it sleeps at most: then the clock is looked at again, which may have been set. */
const longestSleep = 30_000

/** A moment is on time up to so many milliseconds after it: sleeps end late on a busy machine. */
const onTime = 60_000

/** Pause after a job could not be submitted, in milliseconds; doubled with each further time. */
const firstPause = 1000

/** How far back is looked for the latest moment, step by step: each step is a hundred moments or fewer. */
const spans = [60_000, 3_600_000, Number.POSITIVE_INFINITY]

const nextAfter = (cron: Cron.Cron, afterMs: number) => Cron.next(cron, DateTime.makeUnsafe(afterMs)).getTime()

/**
 * The latest moment from `first`, which is due, to `now`; undefined if it is not behind `oldest`. From one moment to the
 * next where that is possible: a search that begins in the hour after a gap in local time does not find what was in it.
 */
const latest = (cron: Cron.Cron, first: number, oldest: number, now: number): number | undefined => {
  for (const span of spans) {
    const from = Math.max(oldest, now - span)
    let found: number | undefined
    for (let at = first > from ? first : nextAfter(cron, from); at <= now; at = nextAfter(cron, at)) found = at
    if (found !== undefined || from === oldest) return found
  }
  return undefined
}

const dated = (atMs: number) => DateTime.formatIso(DateTime.makeUnsafe(atMs))

/** Whether the job of that moment is known to the journal now. */
const submit = Effect.fnUntraced(function*(schedule: Schedule, atMs: number) {
  const control = yield* Control
  const job = jobOf(schedule, atMs)
  return yield* control.submit({ job, hash: requestHash(job), reply: null }).pipe(
    Effect.as(true),
    Effect.catchTag("IdConflict", () =>
      Effect.as(
        Effect.logWarning(
          `job ${job.id} is there already, otherwise than schedule ${schedule.name} says: give a changed schedule a new name`
        ),
        true
      )),
    Effect.catch((error) =>
      Effect.as(Effect.logWarning(`job ${job.id} of schedule ${schedule.name} waits: ${error.message}`), false)
    )
  )
})

const keep = Effect.fnUntraced(function*(schedule: Schedule) {
  const { retention: { dedupeMs } } = yield* Settings
  const cron = cronOf(schedule)
  // What ended longer ago than that is forgotten, and would run again.
  const missedMs = Math.min(schedule.missedMs, dedupeMs)
  const bound = Math.max(missedMs, onTime)
  const startMs = yield* nowMs
  /** Moments up to here are over. */
  let past = startMs - missedMs - 1
  let pause = firstPause
  for (;;) {
    const now = yield* nowMs
    // The date was set back: what comes again is the same jobs, and the journal knows them.
    past = Math.min(past, now)
    const first = nextAfter(cron, past)
    if (first > now) {
      yield* Effect.sleep(Math.min(first - now, longestSleep))
      continue
    }
    const due = latest(cron, first, now - bound - 1, now)
    // Of what was before our start others may have taken care.
    if (due !== first && first > startMs) {
      yield* Effect.logWarning(
        `schedule ${schedule.name}: ${dated(first)}${
          due === undefined ? "" : ` and what follows before ${dated(due)}`
        } passed unseen, and is left out`
      )
    }
    if (due === undefined) {
      past = now
    } else if (yield* submit(schedule, due)) {
      past = due
      pause = firstPause
    } else {
      // Earlier ones are over in any case.
      past = due - 1
      yield* Effect.sleep(pause)
      pause = Math.min(2 * pause, longestSleep)
    }
  }
})

/** Says at once what would else be known at the first job's rejection. */
const complain = Effect.fnUntraced(function*({ args, function: name, name: schedule }: Schedule) {
  const { definitions } = yield* Functions
  const definition = definitions.find((one) => one.name === name)
  if (definition === undefined) {
    return yield* Effect.logError(`schedule ${schedule}: there is no function ${name}; its jobs will be rejected`)
  }
  yield* definition.check(args).pipe(
    Effect.catch((error) => Effect.logError(`schedule ${schedule}: ${error.message} Its jobs will be rejected`))
  )
})

/** As long as the worker lives. The job of a moment is submitted at it; it runs when it is its turn. */
export const rounds = (schedules: ReadonlyArray<Schedule>) =>
  Effect.andThen(
    Effect.forEach(schedules, complain, { discard: true }),
    Effect.forEach(schedules, keep, { concurrency: "unbounded", discard: true })
  )
