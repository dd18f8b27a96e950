/** The file's layout, as the list of steps that lead to it. A step that was published is never changed. */
import type { DatabaseSync } from "node:sqlite"

const steps: ReadonlyArray<string> = [
  // `request` is last: it may be large, and what stands before it is read without it. `seq` is the order of intake.
  // The outbox refers to no row of `jobs`: what is owed is told even when the job's row was replaced or removed.
  `create table jobs (
    seq integer primary key autoincrement,
    key text not null unique,
    intake text not null,
    owner text not null,
    id text not null,
    hash text not null,
    delivered integer not null check (delivered in (0, 1)),
    state text not null check (state in ('queued', 'running', 'ended')),
    attempt integer not null,
    counted integer not null check (counted in (0, 1)),
    fence integer not null,
    instance text,
    lease_until_ms integer,
    received_ms integer not null,
    started_ms integer,
    ended_ms integer,
    settlement text,
    reply text not null,
    request text not null
  ) strict;
  create index jobs_by_state on jobs (state, seq);
  create index jobs_by_id on jobs (id, seq);
  create index jobs_by_holder on jobs (instance, seq) where state = 'running';
  create index jobs_by_end on jobs (ended_ms, seq) where state = 'ended';
  create table fence_floor (fence integer not null) strict;
  insert into fence_floor values (0);
  create table outbox (
    row integer primary key autoincrement,
    job text not null,
    fence integer not null,
    emitter text not null,
    id text not null,
    content text not null,
    made_ms integer not null
  ) strict;
  create index outbox_by_job on outbox (job, fence, row);`,
  // Terms and tries. The rows move to a new table because added columns would come behind `request`. Queued rows begin
  // in the order of (priority, due_ms, seq). Their number is counted by triggers: it is asked for with each submit.
  `create table jobs_with_terms (
    seq integer primary key autoincrement,
    key text not null unique,
    intake text not null,
    owner text not null,
    id text not null,
    hash text not null,
    delivered integer not null check (delivered in (0, 1)),
    state text not null check (state in ('queued', 'running', 'ended')),
    attempt integer not null,
    tries integer not null,
    spent integer not null,
    due_ms integer not null,
    counted integer not null check (counted in (0, 1)),
    fence integer not null,
    instance text,
    lease_until_ms integer,
    received_ms integer not null,
    started_ms integer,
    ended_ms integer,
    priority text not null check (priority in ('high', 'normal', 'low')),
    expires_ms integer,
    retry text,
    settlement text,
    reply text not null,
    request text not null
  ) strict;
  insert into jobs_with_terms
    select seq, key, intake, owner, id, hash, delivered, state, attempt, 1, 0, received_ms, counted, fence, instance,
      lease_until_ms, received_ms, started_ms, ended_ms, 'normal', null, null, settlement, reply, request
    from jobs order by seq;
  drop table jobs;
  alter table jobs_with_terms rename to jobs;
  create index jobs_by_state on jobs (state, seq);
  create index jobs_by_id on jobs (id, seq);
  create index jobs_by_holder on jobs (instance, seq) where state = 'running';
  create index jobs_by_end on jobs (ended_ms, seq) where state = 'ended';
  create index jobs_by_turn on jobs (priority, due_ms, seq) where state = 'queued';
  create table queue_length (rows integer not null) strict;
  insert into queue_length select count(*) from jobs where state = 'queued';
  create trigger jobs_queued after insert on jobs when new.state = 'queued'
    begin update queue_length set rows = rows + 1; end;
  create trigger jobs_unqueued after delete on jobs when old.state = 'queued'
    begin update queue_length set rows = rows - 1; end;
  create trigger jobs_moved after update of state on jobs when (old.state = 'queued') <> (new.state = 'queued')
    begin update queue_length set rows = rows + iif(new.state = 'queued', 1, -1); end;
  create table dead_letters (
    seq integer primary key autoincrement,
    key text not null unique,
    intake text not null,
    owner text not null,
    id text not null,
    hash text not null,
    received_ms integer not null,
    died_ms integer not null,
    tries integer not null,
    reason text not null,
    remedy text not null,
    priority text not null check (priority in ('high', 'normal', 'low')),
    expires_ms integer,
    retry text,
    reply text not null,
    request text not null
  ) strict;
  create index dead_letters_by_time on dead_letters (died_ms, seq);`,
  // Owners take turns.
  `create index jobs_by_owner on jobs (priority, owner, due_ms, seq) where state = 'queued';`,
  // Jobs are listed by owner and by function. The column lies behind `request`, which may be large, so
  // the indexes have all that a list chooses by. A request that cannot be read is found by no function.
  `alter table jobs add column function text not null default '';
  update jobs set function = coalesce(json_extract(request, '$.function'), '') where json_valid(request);
  alter table dead_letters add column function text not null default '';
  update dead_letters set function = coalesce(json_extract(request, '$.function'), '') where json_valid(request);
  create index jobs_of_owner on jobs (owner, state, seq, function);
  create index jobs_of_function on jobs (function, state, seq);`
]

/** "STKR", so that another program's database is told from a journal (pragma application_id). */
const applicationId = 0x53_54_4b_52

/** The file is not ours to write: of a newer Stoker, or of another program. `code` tells which. */
export class ForeignFile extends Error {
  readonly code: "STOKER_NEWER" | "STOKER_OTHER"
  constructor(code: ForeignFile["code"], message: string) {
    super(message)
    this.code = code
  }
}

const pragma = (db: DatabaseSync, name: string): number => {
  const [value] = Object.values(db.prepare(`pragma ${name}`).get() ?? {})
  return typeof value === "number" ? value : 0
}

/** Reads only. Gives the number of steps that were taken already. */
export const check = (db: DatabaseSync): number => {
  const version = pragma(db, "user_version")
  const isEmpty = version === 0 && db.prepare("select 1 from sqlite_schema limit 1").get() === undefined
  if (!isEmpty && pragma(db, "application_id") !== applicationId) {
    throw new ForeignFile("STOKER_OTHER", "it is a database of another program")
  }
  if (version > steps.length) {
    throw new ForeignFile("STOKER_NEWER", `it has layout ${version}, and this version knows up to ${steps.length}`)
  }
  return version
}

/** Takes the steps that are missing, all or none. Another process may do the same at the same time. */
export const migrate = (db: DatabaseSync): void => {
  if (check(db) === steps.length) return
  db.exec("begin immediate")
  const done = check(db)
  for (const step of steps.slice(done)) db.exec(step)
  db.exec(`pragma application_id = ${applicationId}; pragma user_version = ${steps.length}; commit`)
}
