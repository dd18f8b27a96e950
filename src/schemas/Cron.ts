/** Jobs that begin by the clock: what a schedule is, and which moments it means. */
import { Cron, Effect, Result, Schema } from "effect"
import { ClassName, FunctionName, IntakeName, JobId, Owner } from "./Ids.ts"
import type { Job } from "./Job.ts"
import { LimitsRequest } from "./Limits.ts"

/** The door's name in the keys of such jobs. */
export const intake = IntakeName.make("cron")

/** Five fields, or six with seconds first; the hours' field is the third from behind the days. */
const hoursOf = (expression: string) => expression.trim().split(/\s+/).at(-4) ?? ""

/**
 * When clocks go back, an hour comes twice. What is to happen at an hour of the day happens the first time only; what is
 * to happen every so many minutes goes on. When they go forward, what was to happen in the hour that is left out happens
 * once, as much later as they were put forward.
 */
const parse = (expression: string, timeZone: string) =>
  Cron.parse(expression, timeZone, { onDstOverlap: hoursOf(expression).startsWith("*") ? "both" : "earlier" })

const remedy =
  "expected five fields (minute hour day month weekday), or six with seconds first, such as \"30 2 * * 1-5\""

/** From any day on, or never: the 30th of February. */
const comes = (cron: Cron.Cron) =>
  Result.isSuccess(Result.try({ try: () => Cron.next(cron, "2026-01-01T00:00:00Z"), catch: () => "never" }))

const expressionFault = (expression: string): string | undefined => {
  const parsed = parse(expression, "UTC")
  if (Result.isFailure(parsed)) return `${remedy}: ${parsed.failure.message}`
  return comes(parsed.success) ? undefined : `${remedy}: there is no such day`
}

/** A schedule's name: 1 to 64 of `a-z 0-9 -`. With a moment behind it, it is a job's id. */
export const ScheduleName = Schema.String.check(
  Schema.isPattern(/^[a-z0-9][a-z0-9-]{0,63}$/, {
    expected: "a schedule's name: at most 64 lower-case letters, digits and '-'"
  })
)

/** When: five fields, or six with seconds first. */
export const CronExpression = Schema.String.check(Schema.isMaxLength(1000), Schema.makeFilter(expressionFault))

/** A name of the IANA database, or an offset. */
export const TimeZone = Schema.String.check(
  Schema.makeFilter((zone: string) => Result.isSuccess(Cron.parse("* * * * *", zone)), {
    expected: "a time zone, such as Europe/Berlin, +02:00 or UTC"
  })
)

/**
 * Milliseconds. Of the moments that passed while no worker was up, the latest is made up for if it is no longer ago;
 * earlier ones never are. 0: none. Counts up to `retention.dedupeMs` only: as long, a job is known to have been there.
 */
export const MissedMs = Schema.Int.check(
  Schema.isBetween({ minimum: 0, maximum: 86_400_000 }, { expected: "a time of a day at most" })
)

/** What is started, and when. */
export const Schedule = Schema.Struct({
  name: ScheduleName,
  cron: CronExpression,
  timeZone: TimeZone.pipe(Schema.withDecodingDefaultKey(Effect.succeed("UTC"))),
  function: FunctionName,
  args: Schema.Json.pipe(Schema.withDecodingDefaultKey(Effect.succeed({}))),
  class: Schema.optionalKey(ClassName),
  limits: LimitsRequest.pipe(Schema.withDecodingDefaultKey(Effect.succeed({}))),
  owner: Owner.pipe(Schema.withDecodingDefaultKey(Effect.succeed("cron"))),
  missedMs: MissedMs.pipe(Schema.withDecodingDefaultKey(Effect.succeed(600_000)))
})
export type Schedule = typeof Schedule.Type

/** Schedules, each under a name of its own. */
export const schedulesOf = <S extends Schema.Codec<{ readonly name: string }, unknown>>(schedule: S) =>
  Schema.Array(schedule).check(
    Schema.isMaxLength(1000),
    Schema.makeFilter(
      (schedules: ReadonlyArray<{ readonly name: string }>) =>
        new Set(schedules.map(({ name }) => name)).size === schedules.length,
      { expected: "a different name for each schedule" }
    )
  )

/** All that a worker keeps. */
export const Schedules = schedulesOf(Schedule)

/** The moments a schedule means. */
export const cronOf = ({ cron, timeZone }: Schedule): Cron.Cron => Result.getOrThrow(parse(cron, timeZone))

/** `20260329T013000Z` */
const compact = (atMs: number) => new Date(atMs).toISOString().replace(/\.\d{3}/, "").replaceAll(/[-:]/g, "")

/** The job of one moment, in milliseconds since 1970. Every worker makes the same of it, so that it is one job. */
export const jobOf = (
  { args, class: place, function: name, limits, name: schedule, owner }: Schedule,
  atMs: number
): Job => ({
  id: JobId.make(`${schedule}-${compact(atMs)}`),
  owner,
  intake,
  function: name,
  args,
  ...(place === undefined ? {} : { class: place }),
  limits
})
