/** One line of the log for every decision about a caller. It never holds arguments, code or tokens. */
import { Effect, Schema } from "effect"
import type { Caller, Method, Right } from "../../schemas/Access.ts"
import { JobId } from "../../schemas/Ids.ts"
import type { Kind, Unauthenticated } from "./Fault.ts"

/** A decision. */
export interface Decision {
  /** Absent: nobody was believed. */
  readonly caller?: Caller
  /** HOST:PORT, where there is no caller who has it. */
  readonly from?: string
  /** What was asked for; absent where that is not known yet. */
  readonly method?: Method
  /** The job's id as the caller gave it, or as it was made. */
  readonly job?: string
  /** What the caller may do with that method. */
  readonly right?: Right
  readonly allowed: boolean
  /** How it came out: `ok`, or the kind of trouble as every door names it. */
  readonly outcome: "ok" | Kind["name"]
  /** So many times more since it was written last. Absent: this once. */
  readonly again?: number
}

const isJobId = Schema.is(JobId)

/** What a caller sent is only repeated in the log, or remembered for it, if it is an id. */
export const jobOf = (id: string): string => isJobId(id) ? id : "malformed"

/**
 * Writes the decision. Annotations, always all of them and in this order, `-` where there is none: `audit` (true), `caller`,
 * `via`, `from`, `method`, `jobId`, `right`, `decision` (`allowed`, `denied`), `outcome`. Denied ones are warnings.
 */
export const audit = (decision: Decision): Effect.Effect<void> => {
  const { allowed, caller, job, method, outcome, right } = decision
  const word = allowed ? "allowed" : "denied"
  const times = decision.again === undefined ? "" : `, ${decision.again} times more`
  const line = `${caller?.name ?? "nobody known"} ${method ?? "connect"}: ${word}${times}`
  return (allowed ? Effect.logInfo(line) : Effect.logWarning(line)).pipe(
    Effect.annotateLogs({
      audit: true,
      caller: caller?.name ?? "-",
      via: caller?.via ?? "-",
      from: caller?.from ?? decision.from ?? "-",
      method: method ?? "-",
      jobId: job === undefined ? "-" : jobOf(job),
      right: right ?? "-",
      decision: word,
      outcome,
      ...(decision.again === undefined ? {} : { again: decision.again })
    })
  )
}

/** Somebody who was not believed, and why: a door's, before there is a caller. */
export const auditStranger = (
  { reason }: Unauthenticated,
  from: string | undefined,
  method?: Method
): Effect.Effect<void> =>
  audit({
    allowed: false,
    outcome: "unauthenticated",
    ...(from === undefined ? {} : { from }),
    ...(method === undefined ? {} : { method })
  }).pipe(Effect.annotateLogs({ reason }))
