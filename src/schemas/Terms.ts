/**
 * The terms a job is sent on: when it may begin, before which others, and what is tried again. They say nothing about
 * what is run, so they are no part of what tells a repeat of a request from a conflict.
 */
import { Schema } from "effect"
import type { Outcome } from "./Outcome.ts"

/** Which jobs begin first. Heavier levels go more often, lighter ones are never starved. */
export const Priority = Schema.Literals(["high", "normal", "low"])
export type Priority = typeof Priority.Type

/** All levels, the heaviest first. */
export const priorities = Priority.literals

const weight = Schema.Int.check(
  Schema.isBetween({ minimum: 1, maximum: 1000 }, { expected: "a weight from 1 to 1000" })
)

/** Turns each level gets, relative to the others', while all of them have jobs. */
export const PriorityWeights = Schema.Struct({ high: weight, normal: weight, low: weight })
export type PriorityWeights = typeof PriorityWeights.Type

/** Of seven turns four, two and one. */
export const standardWeights: PriorityWeights = { high: 4, normal: 2, low: 1 }

/** An outcome by its name. */
export const OutcomeTag = Schema.Literals([
  "Exited",
  "Signalled",
  "TimedOut",
  "OutOfMemory",
  "OutputExceeded",
  "Stopped",
  "Rejected",
  "SandboxFailed",
  "Lost"
]) satisfies Schema.Schema<Outcome["_tag"]>

/** Which outcomes are tried again, how often and how soon. */
export const RetryPolicy = Schema.Struct({
  on: Schema.Array(OutcomeTag),
  /** With the first one. 1 never tries again. */
  maxAttempts: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 100 }, { expected: "tries from 1 to 100" })),
  /** Milliseconds before the second try; doubled for each one after it, at most an hour. */
  backoffMs: Schema.Int.check(
    Schema.isBetween({ minimum: 1, maximum: 3_600_000 }, { expected: "milliseconds from 1 to 3600000" })
  )
})
export type RetryPolicy = typeof RetryPolicy.Type

/** The failures that are nobody's but ours, three tries, after 1 s and 2 s. */
export const standardRetry: RetryPolicy = { on: ["SandboxFailed", "Lost"], maxAttempts: 3, backoffMs: 1000 }

/** Milliseconds before try `attempt + 1`: doubled each time, at most an hour. */
export const backoffOf = ({ backoffMs }: RetryPolicy, attempt: number): number =>
  Math.min(backoffMs * 2 ** Math.min(attempt - 1, 30), 3_600_000)

/** What the embedded queue keeps beside a job. Times are milliseconds since 1970. */
export const Terms = Schema.Struct({
  priority: Priority,
  /** Not begun before. */
  notBeforeMs: Schema.optionalKey(Schema.Natural),
  /** Not begun after: it becomes a dead letter. */
  expiresAtMs: Schema.optionalKey(Schema.Natural),
  retry: RetryPolicy
})
export type Terms = typeof Terms.Type

/** At once, among the usual ones, for ever, with the usual tries. */
export const standardTerms: Terms = { priority: "normal", retry: standardRetry }
