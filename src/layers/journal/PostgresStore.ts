/**
 * The rules' rows in PostgreSQL. Whoever calls holds the transaction and, for what concerns one key, that key's lock.
 * Rows that several transactions may want are locked in the order of their keys.
 */
import { Effect, Schema } from "effect"
import type { SqlClient, SqlError } from "effect/sql"
import { JobState } from "../../schemas/Job.ts"
import { Priority } from "../../schemas/Terms.ts"
import { type JobFilter, mostListed, states, type Store } from "./Store.ts"

// int8 would come as bigint: what is counted and timed here is exact as a double for ever.
const standing =
  `key, hash, delivered, state, attempt, tries, spent, due_ms::float8 as "dueMs", counted, fence::float8 as fence, instance,
  lease_until_ms::float8 as "leaseUntilMs", received_ms::float8 as "receivedMs", started_ms::float8 as "startedMs",
  ended_ms::float8 as "endedMs"`
const terms = `priority, expires_ms::float8 as "expiresMs", retry`
const whole = `${standing}, intake, owner, id, ${terms}, settlement, reply, request, function`
const found = `seq::float8 as seq, ${whole}`
/** Escapes of what its texts cannot hold (0, halves of surrogate pairs) stand in arguments alone, which are left out. */
const readable = String.raw`regexp_replace(request, '\\u(0000|d[89a-f][0-9a-f]{2})', '\\u0001', 'g')::json`
/** A thousand rows with megabytes of arguments each are too much for one answer. */
const listed = `seq::float8 as seq, ${whole.replace("request, ", "")}, case when length(request) > ${mostListed}
  then (select json_object_agg(part.key, case when part.key = 'args' then '{}'::json else part.value end)::text
    from json_each(${readable}) as part) else request end as request`
const letter = `key, intake, owner, id, hash, received_ms::float8 as "receivedMs", died_ms::float8 as "diedMs", tries,
  reason, remedy, ${terms}, reply, request, function`
const owed = "row::float8 as row, id, emitter, content"

const Standing = Schema.Struct({
  key: Schema.String,
  hash: Schema.String,
  delivered: Schema.Boolean,
  state: JobState,
  attempt: Schema.Number,
  tries: Schema.Number,
  spent: Schema.Number,
  dueMs: Schema.Number,
  counted: Schema.Boolean,
  fence: Schema.Number,
  instance: Schema.NullOr(Schema.String),
  leaseUntilMs: Schema.NullOr(Schema.Number),
  receivedMs: Schema.Number,
  startedMs: Schema.NullOr(Schema.Number),
  endedMs: Schema.NullOr(Schema.Number)
})
const Sent = Schema.Struct({
  key: Schema.String,
  intake: Schema.String,
  owner: Schema.String,
  id: Schema.String,
  hash: Schema.String,
  function: Schema.String,
  request: Schema.String,
  reply: Schema.String,
  receivedMs: Schema.Number,
  priority: Priority,
  expiresMs: Schema.NullOr(Schema.Number),
  retry: Schema.NullOr(Schema.String)
})
const JobRow = Schema.Struct({ ...Standing.fields, ...Sent.fields, settlement: Schema.NullOr(Schema.String) })
const ListedRow = Schema.Struct({ ...JobRow.fields, seq: Schema.Number })
const LetterRow = Schema.Struct({
  ...Sent.fields,
  tries: Schema.Number,
  diedMs: Schema.Number,
  reason: Schema.String,
  remedy: Schema.String
})
const OwedRow = Schema.Struct({
  row: Schema.Number,
  id: Schema.String,
  emitter: Schema.String,
  content: Schema.String
})
const Lapsed = Schema.Struct({
  key: Schema.String,
  instance: Schema.String,
  fence: Schema.Number,
  untilMs: Schema.Number
})

const standings = Schema.decodeUnknownEffect(Schema.Array(Standing))
const jobRows = Schema.decodeUnknownEffect(Schema.Array(JobRow))
const listedRows = Schema.decodeUnknownEffect(Schema.Array(ListedRow))
const owedRows = Schema.decodeUnknownEffect(Schema.Array(OwedRow))
const lapses = Schema.decodeUnknownEffect(Schema.Array(Lapsed))
const holders = Schema.decodeUnknownEffect(Schema.Array(Schema.Struct({ instance: Schema.String })))
const ownerRows = Schema.decodeUnknownEffect(Schema.Array(Schema.Struct({ owner: Schema.String })))
const letterRows = Schema.decodeUnknownEffect(Schema.Array(LetterRow))
const numbers = Schema.decodeUnknownEffect(Schema.Array(Schema.Struct({ number: Schema.NullOr(Schema.Number) })))

/** What stops a step: the server, or a row that somebody else wrote. */
export type StepFailure = SqlError.SqlError | Schema.SchemaError

type Value = string | number | boolean | null | ReadonlyArray<string>

/** Numbers go as text, so that the server takes each for the type of its column, however large it is. */
const parameter = (value: Value) => typeof value === "number" ? String(value) : value

/**
 * The statement that goes through as few rows as there are to give, with its values. A range over the whole of an index,
 * in its order, can be had from no other one: asked for what is equal, the planner may go through all rows by `seq` for a
 * few of them. (`seq` without its table is the double that is given.)
 */
export const listing = ({ before, function: name, id, limit, owner, state }: JobFilter) => {
  const values: Array<Value> = [limit]
  const place = (value: Value) => `$${values.push(value)}`
  const last = place((before ?? Number.MAX_SAFE_INTEGER) - 1)
  if (id !== undefined) {
    const conditions = [
      `id = ${place(id)}`,
      ...(owner === undefined ? [] : [`owner = ${place(owner)}`]),
      ...(name === undefined ? [] : [`function = ${place(name)}`]),
      ...(state === undefined ? [] : [`state = ${place(state)}`])
    ]
    const where = `${conditions.join(" and ")} and seq <= ${last}`
    return { text: `select ${found} from jobs where ${where} order by jobs.seq desc limit $1`, values }
  }
  if (state === undefined && owner === undefined && name === undefined) {
    return { text: `select ${listed} from jobs where seq <= ${last} order by jobs.seq desc limit $1`, values }
  }
  const choice = owner ?? name
  const columns = [...(choice === undefined ? [] : [owner === undefined ? "function" : "owner"]), "state", "seq"]
  const fixed = choice === undefined ? "" : `${place(choice)}, `
  const also = owner === undefined || name === undefined ? "" : `and function = ${place(name)}`
  const text = `select ${listed} from jobs where seq in (
      select found.seq from unnest(${place(state === undefined ? states : [state])}::text[]) as asked (state), lateral (
        select seq from jobs
          where (${columns.join(", ")}) between (${fixed}asked.state, 0) and (${fixed}asked.state, ${last}) ${also}
          order by ${columns.map((column) => `${column} desc`).join(", ")} limit $1
      ) as found order by found.seq desc limit $1
    ) order by jobs.seq desc`
  return { text, values }
}

/** `locking`: a row that decides is kept from changing until the transaction ends. */
export const make = (sql: SqlClient.SqlClient, locking: boolean): Store<Effect.Effect<unknown, StepFailure>> => {
  const locked = locking ? "for update" : ""
  const query = (text: string, ...values: ReadonlyArray<Value>) => sql.unsafe(text, values.map(parameter))
  const run = (text: string, ...values: ReadonlyArray<Value>) => Effect.asVoid(query(text, ...values))
  const number = (text: string, ...values: ReadonlyArray<Value>) =>
    query(text, ...values).pipe(Effect.flatMap(numbers), Effect.map((rows) => rows[0]?.number ?? null))
  const removed = (text: string, ...values: ReadonlyArray<Value>) =>
    Effect.map(query(text, ...values), (rows) => rows.length)
  const first = <A>(rows: ReadonlyArray<A>) => rows[0]

  return {
    standing: (key) =>
      query(`select ${standing} from jobs where key = $1 ${locked}`, key).pipe(
        Effect.flatMap(standings),
        Effect.map(first)
      ),
    row: (key) =>
      query(`select ${whole} from jobs where key = $1`, key).pipe(Effect.flatMap(jobRows), Effect.map(first)),
    insert: (row) =>
      Effect.andThen(
        run("delete from jobs where key = $1", row.key),
        run(
          `insert into jobs (key, intake, owner, id, hash, delivered, state, attempt, tries, spent, due_ms, counted, fence,
             instance, lease_until_ms, received_ms, started_ms, ended_ms, priority, expires_ms, retry, settlement, reply,
             request, function)
           values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22,
             $23, $24, $25)`,
          row.key,
          row.intake,
          row.owner,
          row.id,
          row.hash,
          row.delivered,
          row.state,
          row.attempt,
          row.tries,
          row.spent,
          row.dueMs,
          row.counted,
          row.fence,
          row.instance,
          row.leaseUntilMs,
          row.receivedMs,
          row.startedMs,
          row.endedMs,
          row.priority,
          row.expiresMs,
          row.retry,
          row.settlement,
          row.reply,
          row.request,
          row.function
        )
      ),
    stand: (row) =>
      run(
        `update jobs set delivered = $2, state = $3, attempt = $4, counted = $5, fence = $6, instance = $7,
           lease_until_ms = $8, started_ms = $9, ended_ms = $10, tries = $11, spent = $12, due_ms = $13 where key = $1`,
        row.key,
        row.delivered,
        row.state,
        row.attempt,
        row.counted,
        row.fence,
        row.instance,
        row.leaseUntilMs,
        row.startedMs,
        row.endedMs,
        row.tries,
        row.spent,
        row.dueMs
      ),
    lease: (key, untilMs) => run("update jobs set lease_until_ms = $2 where key = $1", key, untilMs),
    end: (key, endedMs, settlement) =>
      run(
        "update jobs set state = 'ended', lease_until_ms = null, ended_ms = $2, settlement = $3 where key = $1",
        key,
        endedMs,
        settlement
      ),
    forget: ({ fence, key }) =>
      Effect.andThen(
        run("delete from jobs where key = $1", key),
        run("update fence_floor set fence = greatest(fence, $1)", fence)
      ),
    fenceFloor: () => Effect.map(number("select fence::float8 as number from fence_floor"), (fence) => fence ?? 0),
    due: (priority, nowMs, limit, except) =>
      query(
        `select ${whole} from jobs where state = 'queued' and priority = $1 and due_ms <= $2 and key <> all($3::text[])
           order by due_ms, seq limit $4`,
        priority,
        nowMs,
        except,
        limit
      ).pipe(Effect.flatMap(jobRows)),
    dueOf: (priority, owners, nowMs, limit, except) =>
      query(
        `select found.* from unnest($2::text[]) with ordinality as asked (name, place), lateral (
           select ${whole} from jobs where state = 'queued' and priority = $1 and owner collate "C" = asked.name
             and due_ms <= $3 and key <> all($4::text[]) order by due_ms, seq limit $5
         ) as found order by asked.place, found."dueMs"`,
        priority,
        owners,
        nowMs,
        except,
        limit
      ).pipe(Effect.flatMap(jobRows)),
    // From one owner to the next by the index: "distinct" would read all rows of each.
    owners: (priority, after, limit) =>
      query(
        `with recursive found (owner) as (
           (select min(owner collate "C") from jobs where state = 'queued' and priority = $1 and owner collate "C" > $2)
           union all
           select (select min(owner collate "C") from jobs
             where state = 'queued' and priority = $1 and owner collate "C" > found.owner)
           from found where found.owner is not null
         ) select owner from found where owner is not null limit $3`,
        priority,
        after,
        limit
      ).pipe(Effect.flatMap(ownerRows), Effect.map((rows) => rows.map(({ owner }) => owner))),
    nextDue: (priority, nowMs) =>
      number(
        "select min(due_ms)::float8 as number from jobs where state = 'queued' and priority = $1 and due_ms > $2",
        priority,
        nowMs
      ),
    owing: () => Effect.map(number("select count(*)::float8 as number from outbox"), (rows) => rows ?? 0),
    waiting: () => Effect.map(number("select sum(rows)::float8 as number from queue_length"), (rows) => rows ?? 0),
    // In the order of keys, because they are locked.
    heldBy: (instance) =>
      query(`select ${standing} from jobs where state = 'running' and instance = $1 order by key for update`, instance)
        .pipe(Effect.flatMap(standings)),
    lapsed: (nowMs, limit) =>
      query(
        `select key, instance, fence::float8 as fence, lease_until_ms::float8 as "untilMs" from jobs
           where state = 'running' and instance is not null and not delivered and lease_until_ms <= $1
           order by lease_until_ms, seq limit $2`,
        nowMs,
        limit
      ).pipe(Effect.flatMap(lapses)),
    holders: () =>
      query("select distinct instance from jobs where state = 'running' and instance is not null order by instance")
        .pipe(Effect.flatMap(holders), Effect.map((rows) => rows.map(({ instance }) => instance))),
    list: (filter) => {
      const { text, values } = listing(filter)
      return query(text, ...values).pipe(Effect.flatMap(listedRows))
    },
    // What another settling removes already is left to it.
    prune: (endedMs, limit) =>
      removed(
        `delete from jobs where seq in (select seq from jobs where state = 'ended' and ended_ms < $1
           order by ended_ms, seq limit $2 for update skip locked) returning key`,
        endedMs,
        limit
      ),
    owe: (key, fence, { content, emitter, id }, madeMs) =>
      run(
        "insert into outbox (job, fence, emitter, id, content, made_ms) values ($1, $2, $3, $4, $5, $6)",
        key,
        fence,
        emitter,
        id,
        content,
        madeMs
      ),
    owedBy: (key, fence) =>
      query(`select ${owed} from outbox where job = $1 and fence = $2 order by row`, key, fence).pipe(
        Effect.flatMap(owedRows)
      ),
    owed: (limit) => query(`select ${owed} from outbox order by row limit $1`, limit).pipe(Effect.flatMap(owedRows)),
    told: (row) => run("delete from outbox where row = $1", row),
    bury: (row) =>
      Effect.andThen(
        run("delete from dead_letters where key = $1", row.key),
        run(
          `insert into dead_letters (key, intake, owner, id, hash, received_ms, died_ms, tries, reason, remedy, priority,
             expires_ms, retry, reply, request, function)
           values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)`,
          row.key,
          row.intake,
          row.owner,
          row.id,
          row.hash,
          row.receivedMs,
          row.diedMs,
          row.tries,
          row.reason,
          row.remedy,
          row.priority,
          row.expiresMs,
          row.retry,
          row.reply,
          row.request,
          row.function
        )
      ),
    letter: (key) =>
      query(`select ${letter} from dead_letters where key = $1`, key).pipe(
        Effect.flatMap(letterRows),
        Effect.map(first)
      ),
    exhume: (key) => run("delete from dead_letters where key = $1", key),
    buried: () => Effect.map(number("select count(*)::float8 as number from dead_letters"), (letters) => letters ?? 0),
    letters: (limit) =>
      query(`select ${letter} from dead_letters order by died_ms, seq limit $1`, limit).pipe(
        Effect.flatMap(letterRows)
      ),
    pruneLetters: (diedMs, limit) =>
      removed(
        `delete from dead_letters where seq in (select seq from dead_letters where died_ms < $1
           order by died_ms, seq limit $2 for update skip locked) returning key`,
        diedMs,
        limit
      )
  }
}
