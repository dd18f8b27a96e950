/** One request to run something, once. Everything a door hands over becomes this. */
import { Effect, Schema } from "effect"
import type { JobKey } from "./Ids.ts"
import { ClassName, FunctionName, IntakeName, JobId, Owner } from "./Ids.ts"
import { LimitsRequest } from "./Limits.ts"

/** One job, as every door hands it over. */
export const Job = Schema.Struct({
  id: JobId,
  owner: Owner,
  intake: IntakeName,
  function: FunctionName,
  /** The function's own Schema says what belongs here. Plain JSON. */
  args: Schema.Json,
  /** Absent: the worker's default class. */
  class: Schema.optionalKey(ClassName),
  limits: LimitsRequest.pipe(Schema.withDecodingDefaultKey(Effect.succeed({}))),
  /** W3C `traceparent` of whoever sent it. */
  traceparent: Schema.optionalKey(Schema.String.check(Schema.isMaxLength(128)))
})
export type Job = typeof Job.Type

/** The job's identity. */
export const keyOf = (job: Job): JobKey => ({ intake: job.intake, owner: job.owner, id: job.id })

/** Where a job stands, as the journal knows it. */
export const JobState = Schema.Literals(["queued", "running", "ended"])
export type JobState = typeof JobState.Type
