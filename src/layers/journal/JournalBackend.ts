/** The contract over whatever carries out operations: encodes, takes the time, and decodes what comes back. */
import { Clock, Duration, Effect, Schema } from "effect"
import { InstanceId, JobKey, keyText } from "../../schemas/Ids.ts"
import { Job, JobState, keyOf } from "../../schemas/Job.ts"
import { Message } from "../../schemas/Message.ts"
import { Settlement } from "../../schemas/Settlement.ts"
import {
  type Claim,
  type ClaimAnswer,
  ClaimLost,
  IdConflict,
  type JobRecord,
  type Journal,
  JournalError,
  type Lapse,
  type Owed,
  type Request
} from "./Journal.ts"
import type { Answer, Claimed, Operation, OperationName } from "./Operation.ts"
import type { Lapsed, OwedRow } from "./Rows.ts"
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
}

export const policyOf = (options: JournalOptions = {}): Policy => {
  const dedupeMs = Duration.toMillis(options.dedupeWindow ?? "24 hours")
  return { dedupeMs, retainMs: Math.max(dedupeMs, Duration.toMillis(options.retention ?? "7 days")) }
}

const JobJson = Schema.fromJsonString(Schema.toCodecJson(Job))
const SettlementJson = Schema.fromJsonString(Schema.toCodecJson(Settlement))
const AnyJson = Schema.fromJsonString(Schema.Json)

const RecordRow = Schema.Struct({
  request: JobJson,
  hash: Schema.String,
  reply: AnyJson,
  state: JobState,
  attempt: Schema.Natural,
  instance: Schema.NullOr(InstanceId),
  receivedMs: Schema.Natural,
  settlement: Schema.NullOr(SettlementJson)
})
const OwedMessage = Schema.Struct({ ...Message.fields, content: AnyJson })

const encodeJob = Schema.encodeEffect(JobJson)
const encodeSettlement = Schema.encodeEffect(SettlementJson)
const encodeJson = Schema.encodeEffect(AnyJson)
const decodeRecord = Schema.decodeUnknownEffect(RecordRow)
const decodeMessage = Schema.decodeUnknownEffect(OwedMessage)
const decodeSettlement = Schema.decodeUnknownEffect(SettlementJson)
const decodeInstance = Schema.decodeUnknownEffect(InstanceId)

const decodeHolder = Schema.decodeUnknownEffect(Schema.Struct({ key: JobKey, instance: InstanceId }))

/** Something we wrote ourselves no longer reads. It is said with its key, never left out. */
const unreadable = (what: string) => <A>(decoded: Effect.Effect<A, Schema.SchemaError>) =>
  Effect.mapError(decoded, (error) =>
    new JournalError({
      operation: `read ${what}`,
      reason: `what is written there cannot be understood (${error.message})`,
      remedy: "Remove that row with `sqlite3`, or start with a new journal",
      cause: error
    }))

const unwritable = (what: string) => <A>(encoded: Effect.Effect<A, Schema.SchemaError>) =>
  Effect.mapError(encoded, (error) =>
    new JournalError({
      operation: `write down ${what}`,
      reason: `it is not plain data (${error.message})`,
      remedy: "This is a fault in Stoker or its caller: report it",
      cause: error
    }))

const recordOf = Effect.fnUntraced(function*(row: { readonly key: string }) {
  const { attempt, hash, instance, receivedMs, reply, request, settlement, state } = yield* decodeRecord(row).pipe(
    unreadable(`job ${row.key}`)
  )
  const record: JobRecord = {
    request: { job: request, hash, reply },
    state,
    attempt,
    ...(instance === null ? {} : { instance }),
    receivedAtMs: receivedMs,
    ...(settlement === null ? {} : { settlement })
  }
  return record
})

const owedOf = Effect.fnUntraced(function*(row: OwedRow) {
  const { content, emitter, id } = yield* decodeMessage(row).pipe(unreadable(`message ${row.id} (outbox ${row.row})`))
  const owed: Owed = { row: row.row, message: { id, emitter, content } }
  return owed
})

const lapseOf = Effect.fnUntraced(function*({ fence, instance, key, untilMs }: Lapsed) {
  const [intake, owner, id] = key.split("/")
  const decoded = yield* decodeHolder({ key: { intake, owner, id }, instance }).pipe(unreadable(`job ${key}`))
  const lapse: Lapse = { ...decoded, fence, untilMs }
  return lapse
})

const now = Effect.map(Clock.currentTimeMillis, Math.floor)
const bounded = (limit: number) => Math.min(Math.max(Math.trunc(limit), 0), 1_000_000)
const claimed = ({ fence, instance, key }: Claim): Claimed => ({ key: keyText(key), instance, fence })

const asked = Effect.fnUntraced(function*({ hash, job, reply }: Request) {
  const key = keyText(keyOf(job))
  return {
    key,
    intake: job.intake,
    owner: job.owner,
    id: job.id,
    hash,
    request: yield* encodeJob(job).pipe(unwritable(`job ${key}`)),
    reply: yield* encodeJson(reply).pipe(unwritable(`where the statuses of job ${key} go`)),
    nowMs: yield* now
  }
})

/** Every answer of the rules in the contract's words. */
const claimAnswer = (
  key: JobKey,
  instance: InstanceId,
  answer: Answer<"claim">
): Effect.Effect<ClaimAnswer, IdConflict | JournalError> => {
  switch (answer._tag) {
    case "Conflict":
      return Effect.fail(new IdConflict({ key }))
    case "Granted":
    case "Exhausted": {
      const { _tag, attempt, fence } = answer
      const claim: Claim = { key, instance, attempt, fence }
      return Effect.succeed(_tag === "Granted" ? { _tag, claim } : { _tag, claim, attempts: attempt })
    }
    case "Settled":
      return decodeSettlement(answer.settlement).pipe(
        unreadable(`how job ${keyText(key)} ended`),
        Effect.map((settlement) => ({ _tag: "Settled", settlement }))
      )
    case "Held": {
      const { _tag, fence, isLapsed, untilMs } = answer
      return decodeInstance(answer.instance).pipe(
        unreadable(`who holds job ${keyText(key)}`),
        Effect.map((instance) => ({ _tag, instance, fence, untilMs, isLapsed }))
      )
    }
  }
}

/** A whole journal, given what its stores differ in. */
export const make = (perform: Perform, scope: Journal["Service"]["scope"] = "host"): Journal["Service"] => ({
  scope,

  submit: Effect.fn("Journal.submit")(function*(request) {
    const input = yield* asked(request)
    const answer = yield* perform(`write down job ${input.key}`, { name: "submit", input })
    if (answer._tag === "Conflict") return yield* new IdConflict({ key: keyOf(request.job) })
    return yield* recordOf(answer.row)
  }),

  claim: Effect.fn("Journal.claim")(function*(request, { instance, leaseMs, leavesLapsed = false, maxAttempts }) {
    const key = keyOf(request.job)
    const input = { ...(yield* asked(request)), instance, leaseMs: Math.floor(leaseMs), maxAttempts, leavesLapsed }
    const answer = yield* perform(`claim job ${input.key}`, { name: "claim", input })
    return yield* claimAnswer(key, instance, answer)
  }),

  queued: Effect.fn("Journal.queued")(function*(limit) {
    const rows = yield* perform("list what is queued", { name: "queued", input: { limit: bounded(limit) } })
    return yield* Effect.forEach(rows, (row) => Effect.map(recordOf(row), ({ request }) => request))
  }),

  renew: Effect.fn("Journal.renew")(function*(claims, leaseMs) {
    if (claims.length === 0) return []
    const input = { claims: claims.map(claimed), leaseMs: Math.floor(leaseMs), nowMs: yield* now }
    const lost = new Set(yield* perform("prolong the leases of running jobs", { name: "renew", input }))
    return claims.filter((_, index) => lost.has(index))
  }),

  settle: Effect.fn("Journal.settle")(function*(claim, settlement, messages) {
    const key = keyText(claim.key)
    const input = {
      claim: claimed(claim),
      settlement: yield* encodeSettlement(settlement).pipe(unwritable(`how job ${key} ended`)),
      messages: yield* Effect.forEach(messages, ({ content, emitter, id }) =>
        encodeJson(content).pipe(
          unwritable(`message ${id}`),
          Effect.map((content) => ({ id, emitter, content }))
        )),
      nowMs: yield* now
    }
    const answer = yield* perform(`settle job ${key}`, { name: "settle", input })
    if (answer._tag === "Lost") return yield* new ClaimLost({ key: claim.key })
    return yield* Effect.forEach(answer.owed, owedOf)
  }),

  release: Effect.fn("Journal.release")(function*(claim) {
    yield* perform(`give back job ${keyText(claim.key)}`, { name: "release", input: { claim: claimed(claim) } })
  }),

  postpone: Effect.fn("Journal.postpone")(function*(claim) {
    yield* perform(`put off job ${keyText(claim.key)}`, { name: "postpone", input: { claim: claimed(claim) } })
  }),

  own: Effect.fn("Journal.own")(function*(claim) {
    return yield* perform(`take over job ${keyText(claim.key)}`, { name: "own", input: { claim: claimed(claim) } })
  }),

  lapsed: Effect.fn("Journal.lapsed")(function*(limit) {
    const input = { limit: bounded(limit), nowMs: yield* now }
    const rows = yield* perform("list whose leases ran out", { name: "lapsed", input })
    return yield* Effect.forEach(rows, lapseOf)
  }),

  expire: Effect.fn("Journal.expire")(function*({ fence, instance, key, untilMs }) {
    const input = { lapse: { key: keyText(key), instance, fence, untilMs }, nowMs: yield* now }
    return yield* perform(`end a dead worker's claim on job ${input.lapse.key}`, { name: "expire", input })
  }),

  abandon: Effect.fn("Journal.abandon")(function*(instance) {
    return yield* perform(`end the claims of ${instance}`, { name: "abandon", input: { instance } })
  }),

  holders: perform("list who holds claims", { name: "holders", input: null }).pipe(
    Effect.flatMap(Effect.forEach((instance) => decodeInstance(instance).pipe(unreadable(`instance ${instance}`)))),
    Effect.withSpan("Journal.holders")
  ),

  owed: Effect.fn("Journal.owed")(function*(limit) {
    const rows = yield* perform("list what is owed", { name: "owed", input: { limit: bounded(limit) } })
    return yield* Effect.forEach(rows, owedOf)
  }),

  told: Effect.fn("Journal.told")(function*(rows) {
    if (rows.length > 0) yield* perform("strike off told messages", { name: "told", input: { rows } })
  }),

  get: Effect.fn("Journal.get")(function*(key) {
    const row = yield* perform(`look up job ${keyText(key)}`, { name: "get", input: { key: keyText(key) } })
    return row === null ? undefined : yield* recordOf(row)
  }),

  list: Effect.fn("Journal.list")(function*(filter) {
    const input = { ...filter, limit: bounded(filter.limit) }
    return yield* Effect.forEach(yield* perform("list jobs", { name: "list", input }), recordOf)
  })
})
