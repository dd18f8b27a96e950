/** The rules' rows in a SQLite file. Plain TypeScript, used inside the thread; whoever calls holds the transaction. */
import type { DatabaseSync } from "node:sqlite"
import type { JobRow, Lapsed, OwedRow, Standing } from "./Rows.ts"
import type { JobFilter, Store } from "./Store.ts"

const standing = `key, hash, delivered, state, attempt, counted, fence, instance, lease_until_ms as leaseUntilMs,
  received_ms as receivedMs, started_ms as startedMs, ended_ms as endedMs`
const whole = `${standing}, intake, owner, id, settlement, reply, request`
const owed = "row, id, emitter, content"

type Columns = Readonly<Record<string, unknown>>

/** SQLite knows no boolean. The tables are `strict` and checked, so the columns have the types the rows say. */
const rowOf = <R extends Standing>(columns: Columns): R =>
  ({ ...columns, delivered: columns.delivered === 1, counted: columns.counted === 1 }) as unknown as R
const owedOf = (columns: Columns): OwedRow => ({ ...columns }) as unknown as OwedRow
const lapsedOf = (columns: Columns): Lapsed => ({ ...columns }) as unknown as Lapsed
const bit = (value: boolean): number => (value ? 1 : 0)

/** Prepares every statement once. */
export const make = (db: DatabaseSync): Store<never> => {
  const byKey = db.prepare(`select ${whole} from jobs where key = ?`)
  const standingByKey = db.prepare(`select ${standing} from jobs where key = ?`)
  const remove = db.prepare("delete from jobs where key = ?")
  const floor = db.prepare("select fence from fence_floor")
  const raiseFloor = db.prepare("update fence_floor set fence = max(fence, ?)")
  const insert = db.prepare(
    `insert into jobs (key, intake, owner, id, hash, delivered, state, attempt, counted, fence, instance,
       lease_until_ms, received_ms, started_ms, ended_ms, settlement, reply, request)
     values ($key, $intake, $owner, $id, $hash, $delivered, $state, $attempt, $counted, $fence, $instance,
       $leaseUntilMs, $receivedMs, $startedMs, $endedMs, $settlement, $reply, $request)`
  )
  const stand = db.prepare(
    `update jobs set delivered = $delivered, state = $state, attempt = $attempt, counted = $counted, fence = $fence,
       instance = $instance, lease_until_ms = $leaseUntilMs, started_ms = $startedMs, ended_ms = $endedMs where key = $key`
  )
  const lease = db.prepare("update jobs set lease_until_ms = ? where key = ?")
  const end = db.prepare(
    "update jobs set state = 'ended', lease_until_ms = null, ended_ms = ?, settlement = ? where key = ?"
  )
  const queued = db.prepare(`select ${whole} from jobs where state = 'queued' order by seq limit ?`)
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
  const told = db.prepare("delete from outbox where row = ?")

  const newest = (where: string) => db.prepare(`select ${whole} from jobs ${where} order by seq desc limit $limit`)
  const all = newest("")
  const byId = newest("where id = $id")
  const byState = newest("where state = $state")
  const byBoth = newest("where id = $id and state = $state")
  const filtered = ({ id, limit, state }: JobFilter) => {
    if (id !== undefined) return state === undefined ? byId.all({ id, limit }) : byBoth.all({ id, state, limit })
    return state === undefined ? all.all({ limit }) : byState.all({ state, limit })
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
    *stand({ attempt, counted, delivered, endedMs, fence, instance, key, leaseUntilMs, startedMs, state }) {
      const bits = { counted: bit(counted), delivered: bit(delivered) }
      stand.run({ key, state, attempt, fence, instance, leaseUntilMs, startedMs, endedMs, ...bits })
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
    *queued(limit) {
      return queued.all(limit).map(rowOf<JobRow>)
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
      return filtered(filter).map(rowOf<JobRow>)
    },
    *prune(endedMs, limit) {
      prune.run(endedMs, limit)
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
    }
  }
}
