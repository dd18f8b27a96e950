/** Between what the contract says and the rows that are kept: JSON is written and read here, and nowhere else. */
import { Effect, Schema } from "effect"
import { InstanceId, JobKey, keyText } from "../../schemas/Ids.ts"
import { Job, JobState, keyOf } from "../../schemas/Job.ts"
import { Message } from "../../schemas/Message.ts"
import { Outcome } from "../../schemas/Outcome.ts"
import { Settlement } from "../../schemas/Settlement.ts"
import { Priority, RetryPolicy, standardRetry, type Terms } from "../../schemas/Terms.ts"
import { noUsage } from "../../schemas/Usage.ts"
import {
  type DeadJob,
  JobCursor,
  type JobRecord,
  JournalError,
  type Lapse,
  type ListedJob,
  type Owed,
  type QueuedJob,
  type Request
} from "./Journal.ts"
import type { Lapsed, LetterRow, ListedRow, OwedRow, Sent } from "./Rows.ts"

const JobJson = Schema.fromJsonString(Schema.toCodecJson(Job))
const SettlementJson = Schema.fromJsonString(Schema.toCodecJson(Settlement))
const RetryJson = Schema.fromJsonString(Schema.toCodecJson(RetryPolicy))
const AnyJson = Schema.fromJsonString(Schema.Json)

const sent = {
  request: JobJson,
  hash: Schema.String,
  reply: AnyJson,
  receivedMs: Schema.Natural,
  priority: Priority,
  expiresMs: Schema.NullOr(Schema.Natural),
  retry: Schema.NullOr(RetryJson),
  tries: Schema.Natural
}
const RecordColumns = Schema.Struct({
  ...sent,
  delivered: Schema.Boolean,
  dueMs: Schema.Natural,
  state: JobState,
  attempt: Schema.Natural,
  instance: Schema.NullOr(InstanceId),
  startedMs: Schema.NullOr(Schema.Natural),
  settlement: Schema.NullOr(SettlementJson)
})
const LetterColumns = Schema.Struct({
  ...sent,
  diedMs: Schema.Natural,
  reason: Schema.String,
  remedy: Schema.String
})
const OwedMessage = Schema.Struct({ ...Message.fields, content: AnyJson })

const encodeJob = Schema.encodeEffect(JobJson)
const encodeSettlement = Schema.encodeEffect(SettlementJson)
const encodeRetry = Schema.encodeEffect(RetryJson)
const encodeJson = Schema.encodeEffect(AnyJson)
const decodeRecord = Schema.decodeUnknownEffect(RecordColumns)
const decodeLetter = Schema.decodeUnknownEffect(LetterColumns)
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
      remedy: "Remove that row (`sqlite3`, `psql`), or start with a new journal",
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

/** A request without terms is one whose transport keeps them. */
export const sentOf = Effect.fnUntraced(function*(
  { hash, job, reply }: Request,
  receivedMs: number,
  terms?: Terms
) {
  const key = keyText(keyOf(job))
  const row: Sent = {
    key,
    intake: job.intake,
    owner: job.owner,
    id: job.id,
    hash,
    function: job.function,
    request: yield* encodeJob(job).pipe(unwritable(`job ${key}`)),
    reply: yield* encodeJson(reply).pipe(unwritable(`where the statuses of job ${key} go`)),
    receivedMs,
    priority: terms?.priority ?? "normal",
    expiresMs: terms?.expiresAtMs ?? null,
    retry: terms === undefined ? null : yield* encodeRetry(terms.retry).pipe(unwritable(`the tries of job ${key}`))
  }
  return row
})

interface TermsColumns {
  readonly priority: Priority
  readonly expiresMs: number | null
  readonly retry: RetryPolicy | null
}

/** `notBeforeMs` absent: at once. */
const termsOf = ({ expiresMs, priority, retry }: TermsColumns, notBeforeMs?: number): Terms => ({
  priority,
  ...(notBeforeMs === undefined ? {} : { notBeforeMs }),
  ...(expiresMs === null ? {} : { expiresAtMs: expiresMs }),
  retry: retry ?? standardRetry
})

const readRecord = Effect.fnUntraced(function*(row: { readonly key: string }) {
  const columns = yield* decodeRecord(row).pipe(unreadable(`job ${row.key}`))
  const { dueMs, hash, receivedMs, reply, request } = columns
  return {
    columns,
    request: { job: request, hash, reply } satisfies Request,
    terms: termsOf(columns, dueMs > receivedMs ? dueMs : undefined)
  }
})

export const recordOf = Effect.fnUntraced(function*(row: { readonly key: string }) {
  const { columns, request, terms } = yield* readRecord(row)
  const { attempt, delivered, instance, receivedMs, settlement, startedMs, state, tries } = columns
  const record: JobRecord = {
    request,
    state,
    attempt,
    ...(instance === null ? {} : { instance }),
    receivedAtMs: receivedMs,
    ...(startedMs === null ? {} : { startedAtMs: startedMs }),
    ...(settlement === null ? {} : { settlement }),
    ...(delivered ? {} : { terms }),
    ...(tries === 1 ? {} : { tries })
  }
  return record
})

const radix = 36

/** Where the next page goes on. */
export const seqOf = (cursor: JobCursor): number => Number.parseInt(cursor, radix)

export const listedOf = (row: ListedRow) =>
  Effect.map(recordOf(row), (record): ListedJob => ({ ...record, cursor: JobCursor.make(row.seq.toString(radix)) }))

export const queuedOf = Effect.fnUntraced(function*(row: { readonly key: string }) {
  const { columns: { receivedMs, tries }, request, terms } = yield* readRecord(row)
  const queued: QueuedJob = { request, terms, tries, receivedAtMs: receivedMs }
  return queued
})

export const letterOf = Effect.fnUntraced(function*(row: LetterRow) {
  const columns = yield* decodeLetter(row).pipe(unreadable(`dead letter ${row.key}`))
  const { diedMs, hash, reason, receivedMs, remedy, reply, request, tries } = columns
  const letter: DeadJob = {
    request: { job: request, hash, reply },
    terms: termsOf(columns),
    tries,
    reason,
    remedy,
    diedAtMs: diedMs,
    receivedAtMs: receivedMs
  }
  return letter
})

export const owedOf = Effect.fnUntraced(function*(row: OwedRow) {
  const { content, emitter, id } = yield* decodeMessage(row).pipe(unreadable(`message ${row.id} (outbox ${row.row})`))
  const owed: Owed = { row: row.row, message: { id, emitter, content } }
  return owed
})

export const messageRowOf = ({ content, emitter, id }: Message) =>
  encodeJson(content).pipe(unwritable(`message ${id}`), Effect.map((content) => ({ id, emitter, content })))

export const settlementText = (key: string, settlement: Settlement) =>
  encodeSettlement(settlement).pipe(unwritable(`how job ${key} ended`))

/** Of a job that was never begun. */
export const rejectionText = (key: string, reason: string, remedy: string, endedAtMs: number) =>
  settlementText(key, {
    outcome: Outcome.cases.Rejected.make({ reason, remedy }),
    usage: noUsage,
    output: [],
    attempt: 0,
    endedAtMs
  })

export const settlementOf = (key: string, text: string | null) =>
  decodeSettlement(text).pipe(unreadable(`how job ${key} ended`))

export const instanceOf = (what: string, name: string) => decodeInstance(name).pipe(unreadable(what))

export const lapseOf = Effect.fnUntraced(function*({ fence, instance, key, untilMs }: Lapsed) {
  const [intake, owner, id] = key.split("/")
  const decoded = yield* decodeHolder({ key: { intake, owner, id }, instance }).pipe(unreadable(`job ${key}`))
  const lapse: Lapse = { ...decoded, fence, untilMs }
  return lapse
})
