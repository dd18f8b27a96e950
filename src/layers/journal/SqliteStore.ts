/** The rules' rows in a SQLite file. Plain TypeScript, used inside the thread; whoever calls holds the transaction. */
import type { DatabaseSync, StatementSync } from "node:sqlite"
import type { JobRow, Lapsed, LetterRow, ListedRow, OwedRow, Standing } from "./Rows.ts"
import { type JobFilter, mostListed, states, type Store } from "./Store.ts"

const standing = `key, hash, delivered, state, attempt, tries, spent, due_ms as dueMs, counted, fence, instance,
  lease_until_ms as leaseUntilMs, received_ms as receivedMs, started_ms as startedMs, ended_ms as endedMs`
const terms = "priority, expires_ms as expiresMs, retry"
const columns = `${standing}, intake, owner, id, ${terms}, settlement, reply, function`
const whole = `${columns}, request`
/** A thousand rows with megabytes of arguments each have no place in the thread. SQLite reads no JSON deeper than 1000. */
const listed = `seq, ${columns}, case when length(request) > ${mostListed} and json_valid(request)
  then json_set(request, '$.args', json('{}')) else request end as request`
const letter = `key, intake, owner, id, hash, received_ms as receivedMs, died_ms as diedMs, tries, reason, remedy,
  ${terms}, reply, request, function`
const owed = "row, id, emitter, content"

type Columns = Readonly<Record<string, unknown>>

/** SQLite knows no boolean. The tables are `strict` and checked, so the columns have the types the rows say. */
const rowOf = <R extends Standing>(columns: Columns): R =>
  ({ ...columns, delivered: columns.delivered === 1, counted: columns.counted === 1 }) as unknown as R
const letterOf = (columns: Columns): LetterRow => ({ ...columns }) as unknown as LetterRow
const owedOf = (columns: Columns): OwedRow => ({ ...columns }) as unknown as OwedRow
const lapsedOf = (columns: Columns): Lapsed => ({ ...columns }) as unknown as Lapsed
const bit = (value: boolean): number => (value ? 1 : 0)

/** By the index that goes through as few rows as there are to give; "indexed by" fails where SQLite would read all. */
export const listing = ({ function: name, id, owner, state }: JobFilter): string => {
  const newest = (choose: string) => `select ${choose} and seq < $before order by seq desc limit $limit`
  const also = (value: string | undefined, condition: string) => (value === undefined ? "" : ` and ${condition}`)
  const isState = also(state, "state = $state")
  const isFunction = also(name, "function = $function")
  if (id !== undefined) {
    const isOwner = also(owner, "owner = $owner")
    return newest(`seq, ${whole} from jobs indexed by jobs_by_id where id = $id${isState}${isOwner}${isFunction}`)
  }
  if (owner === undefined && name === undefined) {
    const from = state === undefined ? "jobs" : "jobs indexed by jobs_by_state"
    return newest(`${listed} from ${from} where true${isState}`)
  }
  const [index, choice] = owner === undefined
    ? ["jobs_of_function", "function = $function"]
    : ["jobs_of_owner", `owner = $owner${isFunction}`]
  // The index has each state's rows in their order.
  const parts = (state === undefined ? states.map((one) => `'${one}'`) : ["$state"]).map((one) =>
    `select seq from (${newest(`seq from jobs indexed by ${index} where ${choice} and state = ${one}`)})`
  )
  return `select ${listed} from jobs where seq in (${parts.join(" union all ")}) order by seq desc limit $limit`
}

/** Prepares every statement once. */
export const make = (db: DatabaseSync): Store<never> => {
  const byKey = db.prepare(`select ${whole} from jobs where key = ?`)
  const standingByKey = db.prepare(`select ${standing} from jobs where key = ?`)
  const remove = db.prepare("delete from jobs where key = ?")
  const floor = db.prepare("select fence from fence_floor")
  const raiseFloor = db.prepare("update fence_floor set fence = max(fence, ?)")
  const insert = db.prepare(
    `insert into jobs (key, intake, owner, id, hash, delivered, state, attempt, tries, spent, due_ms, counted, fence,
       instance, lease_until_ms, received_ms, started_ms, ended_ms, priority, expires_ms, retry, settlement, reply,
       request, function)
     values ($key, $intake, $owner, $id, $hash, $delivered, $state, $attempt, $tries, $spent, $dueMs, $counted, $fence,
       $instance, $leaseUntilMs, $receivedMs, $startedMs, $endedMs, $priority, $expiresMs, $retry, $settlement, $reply,
       $request, $function)`
  )
  const stand = db.prepare(
    `update jobs set delivered = $delivered, state = $state, attempt = $attempt, tries = $tries, spent = $spent,
       due_ms = $dueMs, counted = $counted, fence = $fence, instance = $instance, lease_until_ms = $leaseUntilMs,
       started_ms = $startedMs, ended_ms = $endedMs where key = $key`
  )
  const lease = db.prepare("update jobs set lease_until_ms = ? where key = ?")
  const end = db.prepare(
    "update jobs set state = 'ended', lease_until_ms = null, ended_ms = ?, settlement = ? where key = ?"
  )
  const due = db.prepare(
    `select ${whole} from jobs indexed by jobs_by_turn where state = 'queued' and priority = ? and due_ms <= ?
       and key not in (select value from json_each(?)) order by due_ms, seq limit ?`
  )
  const dueOf = db.prepare(
    `select ${whole} from jobs indexed by jobs_by_owner where state = 'queued' and priority = ? and owner = ?
       and due_ms <= ? and key not in (select value from json_each(?)) order by due_ms, seq limit ?`
  )
  // From one owner to the next by the index: "distinct" would read all rows of each.
  const owners = db.prepare(
    `with recursive found (owner) as (
       select min(owner) from jobs indexed by jobs_by_owner
         where state = 'queued' and priority = $priority and owner > $after
       union all
       select (select min(owner) from jobs indexed by jobs_by_owner
         where state = 'queued' and priority = $priority and owner > found.owner)
       from found where found.owner is not null limit $limit
     ) select owner from found where owner is not null`
  )
  const nextDue = db.prepare(
    `select min(due_ms) as dueMs from jobs indexed by jobs_by_turn where state = 'queued' and priority = ? and due_ms > ?`
  )
  const waiting = db.prepare("select rows from queue_length")
  const heldBy = db.prepare(`select ${standing} from jobs where state = 'running' and instance = ? order by seq`)
  const lapsed = db.prepare(
    `select key, instance, fence, lease_until_ms as untilMs from jobs indexed by jobs_by_holder
       where state = 'running' and instance is not null and delivered = 0 and lease_until_ms <= ?
       order by lease_until_ms, seq limit ?`
  )
  // SQLite would take the index of states for these two, and sort all ended rows again at each settling.
  const holders = db.prepare(
    `select distinct instance from jobs indexed by jobs_by_holder where state = 'running' and instance is not null
       order by instance`
  )
  const prune = db.prepare(
    `delete from jobs where seq in
       (select seq from jobs indexed by jobs_by_end where state = 'ended' and ended_ms < ? order by ended_ms, seq limit ?)`
  )
  const owe = db.prepare("insert into outbox (job, fence, emitter, id, content, made_ms) values (?, ?, ?, ?, ?, ?)")
  const owedBy = db.prepare(`select ${owed} from outbox where job = ? and fence = ? order by row`)
  const oldestOwed = db.prepare(`select ${owed} from outbox order by row limit ?`)
  const owing = db.prepare("select count(*) as owed from outbox")
  const told = db.prepare("delete from outbox where row = ?")
  const unbury = db.prepare("delete from dead_letters where key = ?")
  const bury = db.prepare(
    `insert into dead_letters (key, intake, owner, id, hash, received_ms, died_ms, tries, reason, remedy, priority,
       expires_ms, retry, reply, request, function)
     values ($key, $intake, $owner, $id, $hash, $receivedMs, $diedMs, $tries, $reason, $remedy, $priority, $expiresMs,
       $retry, $reply, $request, $function)`
  )
  const letterByKey = db.prepare(`select ${letter} from dead_letters where key = ?`)
  const buried = db.prepare("select count(*) as letters from dead_letters")
  const oldestLetters = db.prepare(`select ${letter} from dead_letters order by died_ms, seq limit ?`)
  const pruneLetters = db.prepare(
    `delete from dead_letters where seq in
       (select seq from dead_letters where died_ms < ? order by died_ms, seq limit ?)`
  )

  const listings = new Map<string, StatementSync>()
  const filtered = ({ before = Number.MAX_SAFE_INTEGER, function: name, id, limit, owner, state }: JobFilter) => {
    const chosen = {
      ...(id === undefined ? {} : { id }),
      ...(state === undefined ? {} : { state }),
      ...(owner === undefined ? {} : { owner }),
      ...(name === undefined ? {} : { function: name })
    }
    const shape = Object.keys(chosen).join()
    const statement = listings.get(shape) ?? db.prepare(listing({ ...chosen, limit }))
    listings.set(shape, statement)
    return statement.all({ ...chosen, before, limit })
  }

  return {
    *standing(key) {
      const columns = standingByKey.get(key)
      return columns === undefined ? undefined : rowOf<Standing>(columns)
    },
    *row(key) {
      const columns = byKey.get(key)
      return columns === undefined ? undefined : rowOf<JobRow>(columns)
    },
    *insert(row) {
      remove.run(row.key)
      insert.run({ ...row, delivered: bit(row.delivered), counted: bit(row.counted) })
    },
    *stand(standing) {
      const { attempt, counted, delivered, dueMs, endedMs, fence, instance, key, leaseUntilMs, spent } = standing
      const { startedMs, state, tries } = standing
      const times = { dueMs, leaseUntilMs, startedMs, endedMs }
      const bits = { counted: bit(counted), delivered: bit(delivered) }
      stand.run({ key, state, attempt, tries, spent, fence, instance, ...times, ...bits })
    },
    *lease(key, untilMs) {
      lease.run(untilMs, key)
    },
    *end(key, endedMs, settlement) {
      end.run(endedMs, settlement, key)
    },
    *forget({ fence, key }) {
      remove.run(key)
      raiseFloor.run(fence)
    },
    *fenceFloor() {
      return Number(floor.get()?.fence ?? 0)
    },
    *due(priority, nowMs, limit, except) {
      return due.all(priority, nowMs, JSON.stringify(except), limit).map(rowOf<JobRow>)
    },
    *dueOf(priority, owners, nowMs, limit, except) {
      const skipped = JSON.stringify(except)
      return owners.flatMap((owner) => dueOf.all(priority, owner, nowMs, skipped, limit).map(rowOf<JobRow>))
    },
    *owners(priority, after, limit) {
      return owners.all({ priority, after, limit }).map(({ owner }) => String(owner))
    },
    *nextDue(priority, nowMs) {
      const dueMs = nextDue.get(priority, nowMs)?.dueMs
      return typeof dueMs === "number" ? dueMs : null
    },
    *waiting() {
      return Number(waiting.get()?.rows ?? 0)
    },
    *heldBy(instance) {
      return heldBy.all(instance).map(rowOf<Standing>)
    },
    *lapsed(nowMs, limit) {
      return lapsed.all(nowMs, limit).map(lapsedOf)
    },
    *holders() {
      return holders.all().map(({ instance }) => String(instance))
    },
    *list(filter) {
      return filtered(filter).map(rowOf<ListedRow>)
    },
    *prune(endedMs, limit) {
      return Number(prune.run(endedMs, limit).changes)
    },
    *owe(key, fence, { content, emitter, id }, madeMs) {
      owe.run(key, fence, emitter, id, content, madeMs)
    },
    *owedBy(key, fence) {
      return owedBy.all(key, fence).map(owedOf)
    },
    *owed(limit) {
      return oldestOwed.all(limit).map(owedOf)
    },
    *told(row) {
      told.run(row)
    },
    *owing() {
      return Number(owing.get()?.owed ?? 0)
    },
    *bury(letter) {
      unbury.run(letter.key)
      bury.run({ ...letter })
    },
    *letter(key) {
      const columns = letterByKey.get(key)
      return columns === undefined ? undefined : letterOf(columns)
    },
    *exhume(key) {
      unbury.run(key)
    },
    *buried() {
      return Number(buried.get()?.letters ?? 0)
    },
    *letters(limit) {
      return oldestLetters.all(limit).map(letterOf)
    },
    *pruneLetters(diedMs, limit) {
      return Number(pruneLetters.run(diedMs, limit).changes)
    }
  }
}
