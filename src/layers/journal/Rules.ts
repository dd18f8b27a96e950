/** The rules of the journal, once for every store. Pure TypeScript: it also runs in the SQLite thread, without Effect. */
import type { Answer, Asked, Claimed, Operation, OperationName, Operations } from "./Operation.ts"
import type { JobRow, Standing } from "./Rows.ts"
import type { Store } from "./Store.ts"

export interface Policy {
  /** A job that ended less than this ago is answered again; after it, its key is free. */
  readonly dedupeMs: number
  /** Rows that ended longer ago than this are removed, a few with each settling. At least `dedupeMs`. */
  readonly retainMs: number
}

/** Settling adds one row that will have to go and removes up to two, so that a backlog of old rows shrinks. */
const prunedPerSettle = 2

type Handlers = {
  readonly [N in OperationName]: (
    store: Store,
    input: Operations[N]["input"],
    policy: Policy
  ) => Operations[N]["answer"]
}

/** A key is free when nothing has it, or only a job that ended before the window. */
const isFree = (known: Standing | undefined, nowMs: number, policy: Policy): boolean =>
  known === undefined || (known.endedMs !== null && nowMs - known.endedMs >= policy.dedupeMs)

/** The fence goes on where a replaced or forgotten row left it: a claim of that one can never fit the new one. */
const fresh = (store: Store, asked: Asked, replaced: Standing | undefined, delivered: boolean): JobRow => ({
  key: asked.key,
  intake: asked.intake,
  owner: asked.owner,
  id: asked.id,
  hash: asked.hash,
  request: asked.request,
  reply: asked.reply,
  delivered,
  state: "queued",
  attempt: 0,
  counted: false,
  fence: Math.max(replaced?.fence ?? 0, store.fenceFloor()),
  instance: null,
  leaseUntilMs: null,
  receivedMs: asked.nowMs,
  startedMs: null,
  endedMs: null,
  settlement: null
})

const taken = <S extends Standing>(row: S, by: Operations["claim"]["input"], counted: boolean): S => ({
  ...row,
  state: "running",
  attempt: row.attempt + (counted ? 1 : 0),
  counted,
  fence: row.fence + 1,
  instance: by.instance,
  leaseUntilMs: by.nowMs + by.leaseMs,
  startedMs: by.nowMs
})

/** Nobody has it any more: back in the queue, or, when its queue is elsewhere, awaiting redelivery. */
const dropped = (row: Standing, attempt: number): Standing => ({
  ...row,
  state: row.delivered ? "running" : "queued",
  attempt,
  counted: false,
  instance: null,
  leaseUntilMs: null
})

const isOf = (row: Standing, claim: Claimed): boolean => row.instance === claim.instance && row.fence === claim.fence

/** The row of a claim that still stands. An expired lease nobody took over still does. */
const heldWith = (store: Store, claim: Claimed): Standing | undefined => {
  const row = store.standing(claim.key)
  return row?.state === "running" && isOf(row, claim) ? row : undefined
}

const handlers: Handlers = {
  submit: (store, asked, policy) => {
    const known = store.standing(asked.key)
    if (isFree(known, asked.nowMs, policy)) {
      const row = fresh(store, asked, known, false)
      store.insert(row)
      return { _tag: "Known", row }
    }
    const row = known?.hash === asked.hash ? store.row(asked.key) : undefined
    return row === undefined ? { _tag: "Conflict" } : { _tag: "Known", row }
  },

  claim: (store, asked, policy) => {
    const known = store.standing(asked.key)
    if (known === undefined || isFree(known, asked.nowMs, policy)) {
      const row = taken(fresh(store, asked, known, true), asked, true)
      store.insert(row)
      return { _tag: "Granted", attempt: row.attempt, fence: row.fence }
    }
    if (known.hash !== asked.hash) return { _tag: "Conflict" }
    if (known.state === "ended") return { _tag: "Settled", settlement: store.row(asked.key)?.settlement ?? null }
    if (known.instance !== null && known.leaseUntilMs !== null && known.leaseUntilMs > asked.nowMs) {
      return { _tag: "Held", instance: known.instance, untilMs: known.leaseUntilMs }
    }
    const isExhausted = known.attempt >= asked.maxAttempts
    const next = taken(known, asked, !isExhausted)
    store.stand(next)
    return { _tag: isExhausted ? "Exhausted" : "Granted", attempt: next.attempt, fence: next.fence }
  },

  queued: (store, { limit }) => store.queued(limit),

  renew: (store, { claims, untilMs }) =>
    claims.flatMap((claim, index) => {
      if (heldWith(store, claim) === undefined) return [index]
      store.lease(claim.key, untilMs)
      return []
    }),

  // A repeat of a settling that was written down (its caller may not have heard) answers with what is still owed.
  settle: (store, { claim, messages, nowMs, settlement }, policy) => {
    const row = store.standing(claim.key)
    if (row === undefined || row.state === "queued" || !isOf(row, claim)) return { _tag: "Lost" }
    if (row.state === "running") {
      store.end(claim.key, nowMs, settlement)
      for (const message of messages) store.owe(claim.key, claim.fence, message, nowMs)
      store.prune(nowMs - policy.retainMs, prunedPerSettle)
    }
    return { _tag: "Ended", owed: store.owedBy(claim.key, claim.fence) }
  },

  release: (store, { claim }) => {
    const row = heldWith(store, claim)
    if (row === undefined) return null
    const attempt = row.attempt - (row.counted ? 1 : 0)
    if (row.delivered && attempt === 0) store.forget(row)
    else store.stand(dropped(row, attempt))
    return null
  },

  postpone: (store, { claim }) => {
    const row = heldWith(store, claim)
    if (row !== undefined) store.stand(dropped(row, row.attempt))
    return null
  },

  own: (store, { claim }) => {
    const row = heldWith(store, claim)
    if (row !== undefined) store.stand({ ...row, delivered: false })
    return row !== undefined
  },

  abandon: (store, { instance }) => {
    const rows = store.heldBy(instance)
    for (const row of rows) store.stand(dropped(row, row.attempt))
    return rows.length
  },

  holders: (store) => store.holders(),
  owed: (store, { limit }) => store.owed(limit),
  told: (store, { rows }) => {
    for (const row of rows) store.told(row)
    return null
  },
  counts: (store) => store.counts(),
  get: (store, { key }) => store.row(key) ?? null,
  list: (store, filter) => store.list(filter)
}

/** Carries one operation out. The caller makes it atomic. */
export const apply = <N extends OperationName>(store: Store, policy: Policy, operation: Operation<N>): Answer<N> =>
  handlers[operation.name](store, operation.input, policy)
