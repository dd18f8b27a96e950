-- A journal as the first published layout had it. Frozen.
create table jobs (
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
create index outbox_by_job on outbox (job, fence, row);
insert into jobs (key, intake, owner, id, hash, delivered, state, attempt, counted, fence, instance, lease_until_ms,
  received_ms, ended_ms, settlement, reply, request) values
  ('embedded/local/first', 'embedded', 'local', 'first', 'h', 0, 'queued', 0, 0, 0, null, null, 0, null, null, 'null', '{"id": "first", "owner": "local", "intake": "embedded", "function": "command", "args": {"argv": ["true"]}, "limits": {}}'),
  ('embedded/local/held', 'embedded', 'local', 'held', 'h', 0, 'running', 2, 1, 3, 'ann', 9999999999999, 0, null, null, 'null', '{"id": "held", "owner": "local", "intake": "embedded", "function": "command", "args": {"argv": ["true"]}, "limits": {}}'),
  ('embedded/local/over', 'embedded', 'local', 'over', 'h', 0, 'ended', 1, 1, 1, 'ann', null, 0, 2, '{"outcome": {"_tag": "Exited", "phase": "run", "code": 0}, "usage": {"phases": []}, "output": [], "attempt": 1, "endedAtMs": 2}', 'null', '{"id": "over", "owner": "local", "intake": "embedded", "function": "command", "args": {"argv": ["true"]}, "limits": {}}'),
  ('embedded/local/second', 'embedded', 'local', 'second', 'h', 0, 'queued', 0, 0, 0, null, null, 0, null, null, 'null', '{"id": "second", "owner": "local", "intake": "embedded", "function": "command", "args": {"argv": ["true"]}, "limits": {}}');
insert into outbox (job, fence, emitter, id, content, made_ms) values ('embedded/local/over', 1, 'amqp', 'm', 'null', 0);
pragma application_id = 1398033234;
pragma user_version = 1;
