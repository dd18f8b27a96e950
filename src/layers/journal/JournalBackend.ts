/** The contract over whatever carries out operations: encodes, takes the time, and decodes what comes back. */
import { Cause, Clock, Context, Duration, Effect, Exit, Stream } from "effect"
import { type InstanceId, type JobKey, keyText } from "../../schemas/Ids.ts"
import { keyOf } from "../../schemas/Job.ts"
import { standardTerms } from "../../schemas/Terms.ts"
import { Overloaded } from "../control/Overloaded.ts"
import { nowMs } from "../Now.ts"
import { count, metrics, observeMicros } from "../telemetry/Metrics.ts"
import {
  type Claim,
  type ClaimAnswer,
  ClaimLost,
  IdConflict,
  type Journal,
  type JournalError,
  type ListedJob,
  type Revived
} from "./Journal.ts"
import type { Answer, Claimed, Operation, OperationName } from "./Operation.ts"
import * as RowCodec from "./RowCodec.ts"
import type { Policy } from "./Rules.ts"

/** Carries out one operation, atomically and durably as far as it can. `doing` completes "the journal could not …". */
export type Perform = <N extends OperationName>(
  doing: string,
  operation: Operation<N>
) => Effect.Effect<Answer<N>, JournalError>

export interface JournalOptions {
  /** A job that ended less than this ago is answered again instead of run again. 24 hours by default. */
  readonly dedupeWindow?: Duration.Input
  /** Ended jobs are kept this long, and at least for the window. 7 days by default. */
  readonly retention?: Duration.Input
  /** Dead letters are kept this long. 30 days by default. */
  readonly deadLetters?: Duration.Input
}

export const policyOf = (options: JournalOptions = {}): Policy => {
  const dedupeMs = Duration.toMillis(options.dedupeWindow ?? "24 hours")
  return {
    dedupeMs,
    retainMs: Math.max(dedupeMs, Duration.toMillis(options.retention ?? "7 days")),
    deadMs: Duration.toMillis(options.deadLetters ?? "30 days")
  }
}

/** Rows that are listed at once: what others ask meanwhile is done between. */
const PAGE = 50
const bounded = (limit: number) => Math.min(Math.max(Math.trunc(limit), 0), 1_000_000)
const claimed = ({ fence, instance, key }: Claim): Claimed => ({ key: keyText(key), instance, fence })

/** Every answer of the rules in the contract's words. */
const claimAnswer = (
  key: JobKey,
  instance: InstanceId,
  answer: Answer<"claim">
): Effect.Effect<ClaimAnswer, IdConflict | JournalError> => {
  switch (answer._tag) {
    case "Conflict":
      return Effect.fail(new IdConflict({ key }))
    case "Later":
      return Effect.succeed(answer)
    case "Granted":
    case "Exhausted": {
      const { _tag, attempt, fence, ofTry } = answer
      const claim: Claim = { key, instance, attempt, fence }
      if (_tag === "Exhausted") return Effect.succeed({ _tag, claim, attempts: ofTry })
      return Effect.succeed({ _tag, claim, ...(ofTry === attempt ? {} : { firstAttempt: attempt - ofTry + 1 }) })
    }
    case "Settled":
      return Effect.map(
        RowCodec.settlementOf(keyText(key), answer.settlement),
        (settlement) => ({ _tag: "Settled", settlement })
      )
    case "Held": {
      const { _tag, fence, isLapsed, untilMs } = answer
      return Effect.map(
        RowCodec.instanceOf(`who holds job ${keyText(key)}`, answer.instance),
        (instance) => ({ _tag, instance, fence, untilMs, isLapsed })
      )
    }
  }
}

/** Each operation is timed, and each failure counted. */
const measured = (perform: Perform): Perform => (doing, operation) =>
  Effect.contextWith((context: Context.Context<never>) => {
    const clock = Context.get(context, Clock.Clock)
    const begun = clock.monotonicTimeNanosUnsafe()
    const labels = { operation: operation.name }
    return Effect.onExit(perform(doing, operation), (exit) =>
      Effect.sync(() => {
        const micros = Number((clock.monotonicTimeNanosUnsafe() - begun) / 1000n)
        observeMicros(context, metrics.journalOperation, labels, micros)
        // 0 counts too: an alert needs to have seen the series before its first rise.
        const failed = Exit.isFailure(exit) && !Cause.hasInterruptsOnly(exit.cause)
        count(context, metrics.journalErrors, labels, failed ? 1 : 0)
      }))
  })

/** How those who queue a job tell those who wait for one. */
export interface Bell {
  readonly ring: Effect.Effect<void>
  readonly rings: Stream.Stream<void>
}

/** Workers look for what nobody told them several times in that time. */
const soonMs = 1000

const noBell: Bell = { ring: Effect.void, rings: Stream.never }

export interface Place {
  /** Whose workers share it: those of one host, or of several. `host` by default. */
  readonly scope?: Journal["Service"]["scope"]
  readonly bell?: Bell
}

/** A whole journal, given what its stores differ in. */
export const make = (perform: Perform, { bell = noBell, scope = "host" }: Place = {}): Journal["Service"] =>
  backend(measured(perform), scope, bell)

const backend = (perform: Perform, scope: Journal["Service"]["scope"], bell: Bell): Journal["Service"] => ({
  scope,
  arrivals: bell.rings,

  submit: Effect.fn("Journal.submit")(function*(request, { maximum, terms = standardTerms } = {}) {
    const row = yield* RowCodec.sentOf(request, yield* nowMs, terms)
    const input = { ...row, notBeforeMs: terms.notBeforeMs ?? null, maximum: maximum ?? null }
    const answer = yield* perform(`write down job ${row.key}`, { name: "submit", input })
    switch (answer._tag) {
      case "Conflict":
        return yield* new IdConflict({ key: keyOf(request.job) })
      case "Full":
        return yield* new Overloaded({ limit: "queueMaximum", maximum: maximum ?? 0 })
      case "Known":
        // What is not due soon is found in time anyhow, and what runs already is nobody's business.
        if (answer.row.state === "queued" && answer.row.dueMs <= row.receivedMs + soonMs) yield* bell.ring
        return yield* RowCodec.recordOf(answer.row)
    }
  }),

  claim: Effect.fn("Journal.claim")(
    function*(request, { early = false, instance, leaseMs, leavesLapsed = false, maxAttempts, tries = 1 }) {
      const key = keyOf(request.job)
      const row = yield* RowCodec.sentOf(request, yield* nowMs)
      const input = { ...row, instance, leaseMs: Math.floor(leaseMs), maxAttempts, tries, leavesLapsed, early }
      const answer = yield* perform(`claim job ${row.key}`, { name: "claim", input })
      return yield* claimAnswer(key, instance, answer)
    }
  ),

  queued: Effect.fn("Journal.queued")(function*(limit, except = [], round) {
    const input = { limit: bounded(limit), except, round: round ?? null, nowMs: yield* nowMs }
    const { nextMs, round: left, rows } = yield* perform("list what is queued", { name: "queued", input })
    const jobs = yield* Effect.forEach(rows, RowCodec.queuedOf)
    return { jobs, ...(nextMs === null ? {} : { nextMs }), ...(left === null ? {} : { round: left }) }
  }),

  renew: Effect.fn("Journal.renew")(function*(claims, leaseMs) {
    if (claims.length === 0) return []
    const input = { claims: claims.map(claimed), leaseMs: Math.floor(leaseMs), nowMs: yield* nowMs }
    const lost = new Set(yield* perform("prolong the leases of running jobs", { name: "renew", input }))
    return claims.filter((_, index) => lost.has(index))
  }),

  settle: Effect.fn("Journal.settle")(function*(claim, settlement, messages) {
    const key = keyText(claim.key)
    const input = {
      claim: claimed(claim),
      settlement: yield* RowCodec.settlementText(key, settlement),
      messages: yield* Effect.forEach(messages, RowCodec.messageRowOf),
      nowMs: yield* nowMs
    }
    const answer = yield* perform(`settle job ${key}`, { name: "settle", input })
    if (answer._tag === "Lost") return yield* new ClaimLost({ key: claim.key })
    return yield* Effect.forEach(answer.owed, RowCodec.owedOf)
  }),

  release: Effect.fn("Journal.release")(function*(claim) {
    yield* perform(`give back job ${keyText(claim.key)}`, { name: "release", input: { claim: claimed(claim) } })
  }),

  postpone: Effect.fn("Journal.postpone")(function*(claim, notBeforeMs) {
    const input = { claim: claimed(claim), dueMs: notBeforeMs ?? null }
    yield* perform(`put off job ${keyText(claim.key)}`, { name: "postpone", input })
  }),

  own: Effect.fn("Journal.own")(function*(claim) {
    return yield* perform(`take over job ${keyText(claim.key)}`, { name: "own", input: { claim: claimed(claim) } })
  }),

  lapsed: Effect.fn("Journal.lapsed")(function*(limit) {
    const input = { limit: bounded(limit), nowMs: yield* nowMs }
    const rows = yield* perform("list whose leases ran out", { name: "lapsed", input })
    return yield* Effect.forEach(rows, RowCodec.lapseOf)
  }),

  expire: Effect.fn("Journal.expire")(function*({ fence, instance, key, untilMs }) {
    const input = { lapse: { key: keyText(key), instance, fence, untilMs }, nowMs: yield* nowMs }
    return yield* perform(`end a dead worker's claim on job ${input.lapse.key}`, { name: "expire", input })
  }),

  abandon: Effect.fn("Journal.abandon")(function*(instance) {
    return yield* perform(`end the claims of ${instance}`, { name: "abandon", input: { instance } })
  }),

  holders: perform("list who holds claims", { name: "holders", input: null }).pipe(
    Effect.flatMap(Effect.forEach((instance) => RowCodec.instanceOf(`instance ${instance}`, instance))),
    Effect.withSpan("Journal.holders")
  ),

  owed: Effect.fn("Journal.owed")(function*(limit) {
    const rows = yield* perform("list what is owed", { name: "owed", input: { limit: bounded(limit) } })
    return yield* Effect.forEach(rows, RowCodec.owedOf)
  }),

  told: Effect.fn("Journal.told")(function*(rows) {
    if (rows.length > 0) yield* perform("strike off told messages", { name: "told", input: { rows } })
  }),

  counts: perform("count what waits", { name: "counts", input: null }).pipe(Effect.withSpan("Journal.counts")),

  bury: Effect.fn("Journal.bury")(
    function*({ receivedAtMs, request, terms, tries }, { reason, remedy }, claim) {
      const at = yield* nowMs
      const row = yield* RowCodec.sentOf(request, receivedAtMs, terms)
      const letter = { ...row, tries, diedMs: at, reason, remedy }
      const settlement = yield* RowCodec.rejectionText(row.key, reason, remedy, at)
      const input = { letter, claim: claim === undefined ? null : claimed(claim), settlement }
      yield* perform(`keep the dead letter ${row.key}`, { name: "bury", input })
    }
  ),

  dead: Effect.fn("Journal.dead")(function*(limit) {
    const answer = yield* perform("list dead letters", { name: "dead", input: { limit: bounded(limit) } })
    return { total: answer.total, letters: yield* Effect.forEach(answer.letters, RowCodec.letterOf) }
  }),

  letter: Effect.fn("Journal.letter")(function*(key) {
    const input = { key: keyText(key) }
    const row = yield* perform(`look up the dead letter ${input.key}`, { name: "letter", input })
    return row === null ? undefined : yield* RowCodec.letterOf(row)
  }),

  revive: Effect.fn("Journal.revive")(function*(key) {
    const input = { key: keyText(key), nowMs: yield* nowMs }
    const answer = yield* perform(`queue the dead letter ${input.key} again`, { name: "revive", input })
    if (answer._tag !== "Queued") return { _tag: answer._tag }
    yield* bell.ring
    const revived: Revived = { _tag: "Queued", letter: yield* RowCodec.letterOf(answer.letter) }
    return revived
  }),

  discard: Effect.fn("Journal.discard")(function*(key) {
    const input = { key: keyText(key) }
    return yield* perform(`throw away the dead letter ${input.key}`, { name: "discard", input })
  }),

  prune: Effect.flatMap(nowMs, (at) => perform("remove what is old", { name: "prune", input: { nowMs: at } })).pipe(
    Effect.withSpan("Journal.prune")
  ),

  unknown: Effect.fn("Journal.unknown")(function*(keys) {
    return keys.length === 0 ? [] : yield* perform("look up jobs", { name: "unknown", input: { keys } })
  }),

  get: Effect.fn("Journal.get")(function*(key) {
    const row = yield* perform(`look up job ${keyText(key)}`, { name: "get", input: { key: keyText(key) } })
    return row === null ? undefined : yield* RowCodec.recordOf(row)
  }),

  list: Effect.fn("Journal.list")(function*({ before, ...filter }) {
    const limit = bounded(filter.limit)
    const records: Array<ListedJob> = []
    let last = before === undefined ? undefined : RowCodec.seqOf(before)
    while (true) {
      const input = {
        ...filter,
        ...(last === undefined ? {} : { before: last }),
        limit: Math.min(limit - records.length, PAGE)
      }
      const rows = yield* perform("list jobs", { name: "list", input })
      records.push(...yield* Effect.forEach(rows, RowCodec.listedOf))
      last = rows.at(-1)?.seq
      if (last === undefined || rows.length < PAGE || records.length >= limit) return records
    }
  }),

  remove: Effect.fn("Journal.remove")(function*(key) {
    const input = { key: keyText(key) }
    return yield* perform(`forget job ${input.key}`, { name: "remove", input })
  })
})
