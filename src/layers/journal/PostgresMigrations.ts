/** The schema's layout, as the list of steps that lead to it. A step that was published is never changed. */
import { Effect } from "effect"
import type { SqlClient } from "effect/sql"
import { Refused } from "./PostgresFailure.ts"

/** Identifiers, which need no escapes, come before everything else. */
const functionInJson = String.raw`^\{"id":"[^"\\]*","owner":"[^"\\]*","intake":"[^"\\]*","function":"([^"\\]*)"`

/** One statement each. Texts that are compared are kept in "C" order, which is that of the other stores. */
const steps: ReadonlyArray<ReadonlyArray<string>> = [
  // `seq` is the order of intake. The outbox refers to no row of `jobs`: what is owed is told even when that is gone.
  [
    `create table jobs (
      seq bigint generated always as identity primary key,
      key text collate "C" not null unique,
      intake text not null,
      owner text not null,
      id text collate "C" not null,
      hash text not null,
      delivered boolean not null,
      state text not null check (state in ('queued', 'running', 'ended')),
      attempt integer not null,
      tries integer not null,
      spent integer not null,
      due_ms bigint not null,
      counted boolean not null,
      fence bigint not null,
      instance text collate "C",
      lease_until_ms bigint,
      received_ms bigint not null,
      started_ms bigint,
      ended_ms bigint,
      priority text not null check (priority in ('high', 'normal', 'low')),
      expires_ms bigint,
      retry text,
      settlement text,
      reply text not null,
      request text not null
    )`,
    "create index jobs_by_state on jobs (state, seq)",
    "create index jobs_by_id on jobs (id, seq)",
    "create index jobs_by_holder on jobs (instance, key) where state = 'running'",
    "create index jobs_by_end on jobs (ended_ms, seq) where state = 'ended'",
    "create index jobs_by_turn on jobs (priority, due_ms, seq) where state = 'queued'",
    // How many are queued is asked for with each submit. In parts, so that transactions seldom wait for each other.
    "create table queue_length (part integer primary key, rows bigint not null)",
    "insert into queue_length select part, 0 from generate_series(0, 15) as part",
    `create function count_queued() returns trigger language plpgsql set search_path from current as
      'begin
        update queue_length set rows = rows + tg_argv[0]::integer where part = pg_backend_pid() % 16;
        return null;
      end'`,
    `create trigger jobs_queued after insert on jobs for each row when (new.state = 'queued')
      execute function count_queued('1')`,
    `create trigger jobs_unqueued after delete on jobs for each row when (old.state = 'queued')
      execute function count_queued('-1')`,
    `create trigger jobs_taken after update of state on jobs for each row
      when (old.state = 'queued' and new.state <> 'queued') execute function count_queued('-1')`,
    `create trigger jobs_returned after update of state on jobs for each row
      when (old.state <> 'queued' and new.state = 'queued') execute function count_queued('1')`,
    `create table dead_letters (
      seq bigint generated always as identity primary key,
      key text collate "C" not null unique,
      intake text not null,
      owner text not null,
      id text not null,
      hash text not null,
      received_ms bigint not null,
      died_ms bigint not null,
      tries integer not null,
      reason text not null,
      remedy text not null,
      priority text not null check (priority in ('high', 'normal', 'low')),
      expires_ms bigint,
      retry text,
      reply text not null,
      request text not null
    )`,
    "create index dead_letters_by_time on dead_letters (died_ms, seq)",
    "create table fence_floor (fence bigint not null)",
    "insert into fence_floor values (0)",
    `create table outbox (
      row bigint generated always as identity primary key,
      job text collate "C" not null,
      fence bigint not null,
      emitter text not null,
      id text not null,
      content text not null,
      made_ms bigint not null
    )`,
    "create index outbox_by_job on outbox (job, fence, row)",
    // Milliseconds since 1970 on the server, whose clock decides for all workers when a lease ends.
    `create function now_ms() returns double precision language sql volatile
      as 'select floor(extract(epoch from clock_timestamp()) * 1000)::float8'`
  ],
  // Owners take turns.
  [`create index jobs_by_owner on jobs (priority, owner collate "C", due_ms, seq) where state = 'queued'`],
  // Jobs are listed by owner and by function. Of older rows that is taken from the beginning of the text, as Stoker wrote
  // it: PostgreSQL refuses to look into JSON that has a NUL character in a string.
  [
    "alter table jobs add column function text not null default ''",
    `update jobs set function = coalesce(substring(request from '${functionInJson}'), '')`,
    "alter table dead_letters add column function text not null default ''",
    `update dead_letters set function = coalesce(substring(request from '${functionInJson}'), '')`,
    "create index jobs_of_owner on jobs (owner, state, seq, function)",
    "create index jobs_of_function on jobs (function, state, seq)"
  ]
]

const present = `select to_regclass(quote_ident($1) || '.stoker_layout') is not null as "isOurs",
  exists (select from pg_class where relnamespace = to_regnamespace(quote_ident($1))) as "isUsed"`

/** Gives the number of steps that were taken already, and whether our tables are there at all. */
const check = Effect.fnUntraced(function*(sql: SqlClient.SqlClient, schema: string) {
  const [found] = yield* sql.unsafe<{ readonly isOurs: boolean; readonly isUsed: boolean }>(present, [schema])
  if (found?.isOurs !== true) {
    if (found?.isUsed === true) {
      return yield* new Refused({ code: "STOKER_OTHER", message: "it holds tables of another program" })
    }
    return undefined
  }
  const [layout] = yield* sql.unsafe<{ readonly version: number }>("select version from stoker_layout")
  const version = layout?.version ?? 0
  if (version > steps.length) {
    const message = `it has layout ${version}, and this version knows up to ${steps.length}`
    return yield* new Refused({ code: "STOKER_NEWER", message })
  }
  return version
})

const take = Effect.fnUntraced(function*(sql: SqlClient.SqlClient, schema: string) {
  // A step may have to read all rows, which takes longer than any transaction of ours may otherwise.
  yield* sql.unsafe("set local statement_timeout = 0")
  // Workers that start together wait here for the first of them.
  yield* sql.unsafe("select pg_advisory_xact_lock(hashtextextended($1, 1))::text", [`stoker layout ${schema}`])
  const done = yield* check(sql, schema)
  if (done === undefined) {
    const [found] = yield* sql.unsafe("select from pg_namespace where nspname = $1", [schema])
    if (found === undefined) yield* sql.unsafe(`create schema "${schema}"`)
    yield* sql.unsafe("create table stoker_layout (version integer not null)")
    yield* sql.unsafe("insert into stoker_layout values (0)")
  }
  for (const step of steps.slice(done ?? 0)) {
    for (const statement of step) yield* sql.unsafe(statement)
  }
  yield* sql.unsafe("update stoker_layout set version = $1", [steps.length])
})

/** Takes the steps that are missing, all or none. `schema` is the connections' search path. */
export const migrate = Effect.fnUntraced(function*(sql: SqlClient.SqlClient, schema: string) {
  if ((yield* check(sql, schema)) === steps.length) return
  yield* sql.withTransaction(take(sql, schema))
})
