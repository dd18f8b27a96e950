/** Rows in maps, for tests and for workers that need no durability. */
import type { JobRow, OwedRow } from "./Rows.ts"
import type { Store } from "./Store.ts"

interface Debt extends OwedRow {
  readonly key: string
  readonly fence: number
}

/** A store of its own. Maps keep the order of insertion, which is the order the contract asks for. */
export const make = (): Store<never> => {
  const jobs = new Map<string, JobRow>()
  const outbox = new Map<number, Debt>()
  let lastRow = 0
  let fenceFloor = 0
  const matching = (wanted: (row: JobRow) => boolean) => Array.from(jobs.values()).filter(wanted)
  const change = (key: string, changed: Partial<JobRow>) => {
    const row = jobs.get(key)
    if (row !== undefined) jobs.set(key, { ...row, ...changed })
  }
  const owedRow = ({ content, emitter, id, row }: Debt): OwedRow => ({ row, id, emitter, content })
  return {
    *standing(key) {
      return jobs.get(key)
    },
    *row(key) {
      return jobs.get(key)
    },
    *insert(row) {
      jobs.delete(row.key)
      jobs.set(row.key, row)
    },
    *stand({ attempt, counted, delivered, endedMs, fence, instance, key, leaseUntilMs, startedMs, state }) {
      change(key, { state, attempt, counted, delivered, fence, instance, leaseUntilMs, startedMs, endedMs })
    },
    *lease(key, leaseUntilMs) {
      change(key, { leaseUntilMs })
    },
    *end(key, endedMs, settlement) {
      change(key, { state: "ended", leaseUntilMs: null, endedMs, settlement })
    },
    *forget({ fence, key }) {
      jobs.delete(key)
      fenceFloor = Math.max(fenceFloor, fence)
    },
    *fenceFloor() {
      return fenceFloor
    },
    *queued(limit) {
      return matching(({ state }) => state === "queued").slice(0, limit)
    },
    *heldBy(instance) {
      return matching((row) => row.state === "running" && row.instance === instance)
    },
    *lapsed(nowMs, limit) {
      return matching(({ delivered, state }) => state === "running" && !delivered).flatMap(
        ({ fence, instance, key, leaseUntilMs }) =>
          instance === null || leaseUntilMs === null || leaseUntilMs > nowMs
            ? []
            : [{ key, instance, fence, untilMs: leaseUntilMs }]
      ).toSorted((a, b) => a.untilMs - b.untilMs).slice(0, limit)
    },
    *holders() {
      return Array.from(new Set(matching(({ state }) => state === "running").flatMap((row) => row.instance ?? [])))
        .toSorted()
    },
    *list({ id, limit, state }) {
      return matching((row) => (id === undefined || row.id === id) && (state === undefined || row.state === state))
        .toReversed().slice(0, limit)
    },
    *prune(endedMs, limit) {
      const old = matching((row) => row.endedMs !== null && row.endedMs < endedMs)
      const first = old.toSorted((a, b) => (a.endedMs ?? 0) - (b.endedMs ?? 0)).slice(0, limit)
      for (const { key } of first) jobs.delete(key)
    },
    *owe(key, fence, message) {
      lastRow += 1
      outbox.set(lastRow, { ...message, row: lastRow, key, fence })
    },
    *owedBy(key, fence) {
      return Array.from(outbox.values()).filter((debt) => debt.key === key && debt.fence === fence).map(owedRow)
    },
    *owed(limit) {
      return Array.from(outbox.values()).slice(0, limit).map(owedRow)
    },
    *told(row) {
      outbox.delete(row)
    }
  }
}
