/** What a job is started with over HTTP. */
import { Schema } from "effect"
import { LimitsRequest } from "../Limits.ts"
import { Priority, RetryPolicy } from "../Terms.ts"

/** The body of `POST /v1/jobs`. Names, ids and arguments are checked where they are understood. */
export const StartJob = Schema.Struct({
  function: Schema.String,
  /** Plain JSON as the function's Schema wants it. Absent: `{}`. */
  args: Schema.optionalKey(Schema.Json),
  /** Absent: a new one. The same id with the same request is the same job. */
  id: Schema.optionalKey(Schema.String),
  /** For whom; only who is `super` may name another. */
  owner: Schema.optionalKey(Schema.String),
  class: Schema.optionalKey(Schema.String),
  limits: Schema.optionalKey(LimitsRequest),
  priority: Schema.optionalKey(Priority),
  /** Milliseconds since 1970: not begun before. */
  notBeforeMs: Schema.optionalKey(Schema.Natural),
  /** Milliseconds since 1970: not begun after. */
  expiresAtMs: Schema.optionalKey(Schema.Natural),
  retry: Schema.optionalKey(RetryPolicy),
  /** Where its end is posted to; only addresses the operator allows. */
  webhook: Schema.optionalKey(Schema.String.check(Schema.isMaxLength(2048)))
}).annotate({ identifier: "StartJob" })
export type StartJob = typeof StartJob.Type

/** The body of `POST /v1/jobs/{id}/stop`, which may be left out. */
export const StopJob = Schema.Struct({
  /** Milliseconds between TERM and KILL. Absent: 2000; 0: KILL at once. */
  graceMs: Schema.optionalKey(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 60_000 }))),
  reason: Schema.optionalKey(Schema.String.check(Schema.isMaxLength(500)))
}).annotate({ identifier: "StopJob" })
export type StopJob = typeof StopJob.Type
