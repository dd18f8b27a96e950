/** Rows in maps, for tests and for workers that need no durability. */
import type { Priority } from "../../schemas/Terms.ts"
import type { JobRow, LetterRow, OwedRow } from "./Rows.ts"
import { mostListed, type Store } from "./Store.ts"

const listedRequest = (request: string): string =>
  request.length > mostListed
    ? JSON.stringify({ ...JSON.parse(request) as Readonly<Record<string, unknown>>, args: {} })
    : request

interface Debt extends OwedRow {
  readonly key: string
  readonly fence: number
}

/** A store of its own. Maps keep the order of insertion, which is the order the contract asks for. */
export const make = (): Store<never> => {
  const jobs = new Map<string, JobRow>()
  const outbox = new Map<number, Debt>()
  const graves = new Map<string, LetterRow>()
  const places = new Map<string, number>()
  let lastSeq = 0
  let lastRow = 0
  let fenceFloor = 0
  const matching = (wanted: (row: JobRow) => boolean) => Array.from(jobs.values()).filter(wanted)
  const drop = (key: string) => {
    jobs.delete(key)
    places.delete(key)
  }
  const change = (key: string, changed: Partial<JobRow>) => {
    const row = jobs.get(key)
    if (row !== undefined) jobs.set(key, { ...row, ...changed })
  }
  const queued = (priority: Priority) => matching((row) => row.state === "queued" && row.priority === priority)
  const lettersByTime = () => Array.from(graves.values()).toSorted((a, b) => a.diedMs - b.diedMs)
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
      lastSeq += 1
      places.set(row.key, lastSeq)
    },
    *stand(standing) {
      // A whole row is a standing too: only what a standing has is taken from it.
      const { attempt, counted, delivered, dueMs, endedMs, fence, instance, key, leaseUntilMs, spent } = standing
      const { startedMs, state, tries } = standing
      const times = { dueMs, endedMs, leaseUntilMs, startedMs }
      change(key, { state, attempt, tries, spent, counted, delivered, fence, instance, ...times })
    },
    *lease(key, leaseUntilMs) {
      change(key, { leaseUntilMs })
    },
    *end(key, endedMs, settlement) {
      change(key, { state: "ended", leaseUntilMs: null, endedMs, settlement })
    },
    *forget({ fence, key }) {
      drop(key)
      fenceFloor = Math.max(fenceFloor, fence)
    },
    *fenceFloor() {
      return fenceFloor
    },
    *due(priority, nowMs, limit, except) {
      const skipped = new Set(except)
      return queued(priority)
        .filter(({ dueMs, key }) => dueMs <= nowMs && !skipped.has(key))
        .toSorted((a, b) => a.dueMs - b.dueMs)
        .slice(0, limit)
    },
    *dueOf(priority, owners, nowMs, limit, except) {
      const skipped = new Set(except)
      const due = queued(priority)
        .filter(({ dueMs, key }) => dueMs <= nowMs && !skipped.has(key))
        .toSorted((a, b) => a.dueMs - b.dueMs)
      return owners.flatMap((owner) => due.filter((row) => row.owner === owner).slice(0, limit))
    },
    *owners(priority, after, limit) {
      const byBytes = (a: string, b: string) => Buffer.compare(Buffer.from(a), Buffer.from(b))
      const owners = new Set(queued(priority).map(({ owner }) => owner))
      return [...owners].filter((owner) => byBytes(owner, after) > 0).toSorted(byBytes).slice(0, limit)
    },
    *nextDue(priority, nowMs) {
      const later = queued(priority).filter(({ dueMs }) => dueMs > nowMs)
      return later.reduce<number | null>((least, { dueMs }) => Math.min(least ?? dueMs, dueMs), null)
    },
    *waiting() {
      return matching(({ state }) => state === "queued").length
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
    *list({ before, function: name, id, limit, owner, state }) {
      const seqOf = ({ key }: JobRow) => places.get(key) ?? 0
      return matching((row) =>
        (id === undefined || row.id === id) && (state === undefined || row.state === state) &&
        (owner === undefined || row.owner === owner) && (name === undefined || row.function === name) &&
        (before === undefined || seqOf(row) < before)
      ).toReversed().slice(0, limit).map((row) => ({
        ...row,
        request: id === undefined ? listedRequest(row.request) : row.request,
        seq: seqOf(row)
      }))
    },
    *prune(endedMs, limit) {
      const old = matching((row) => row.endedMs !== null && row.endedMs < endedMs)
      const first = old.toSorted((a, b) => (a.endedMs ?? 0) - (b.endedMs ?? 0)).slice(0, limit)
      for (const { key } of first) drop(key)
      return first.length
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
    },
    *owing() {
      return outbox.size
    },
    *bury(letter) {
      graves.delete(letter.key)
      graves.set(letter.key, letter)
    },
    *letter(key) {
      return graves.get(key)
    },
    *exhume(key) {
      graves.delete(key)
    },
    *buried() {
      return graves.size
    },
    *letters(limit) {
      return lettersByTime().slice(0, limit)
    },
    *pruneLetters(diedMs, limit) {
      const old = lettersByTime().filter((letter) => letter.diedMs < diedMs).slice(0, limit)
      for (const { key } of old) graves.delete(key)
      return old.length
    }
  }
}
