/**
 * The rules of the journal, once for every store. Generators, so that a store may wait (with Effect) or answer at once:
 * nothing of a store happens without `yield*`. Pure TypeScript: they also run in the SQLite thread, without Effect.
 */
import type { Priority } from "../../schemas/Terms.ts"
import type { Answer, Claimed, Holding, Operation, OperationName, Operations } from "./Operation.ts"
import type { JobRow, Sent, Standing } from "./Rows.ts"
import type { Step, Store } from "./Store.ts"

export interface Policy {
  /** A job that ended less than this ago is answered again; after it, its key is free. */
  readonly dedupeMs: number
  /** Rows that ended longer ago than this are removed, a few with each settling. At least `dedupeMs`. */
  readonly retainMs: number
  /** Dead letters older than this are removed. */
  readonly deadMs: number
}

/** All of them, the heaviest first. Not taken from the schema: that would bring Effect into the thread. */
const priorities = Object.keys({ high: 0, normal: 1, low: 2 } satisfies Record<Priority, number>) as Array<Priority>

/** Settling adds one row that will have to go and removes up to two, so that a backlog of old rows shrinks. */
const prunedPerSettle = 2
/** Of each kind, when nothing else is done: a few milliseconds of work. */
const prunedAtOnce = 500

/** The next owners of a round, each once, beginning again behind the last. */
function* ownersFrom<Y>(
  store: Store<Y>,
  priority: Priority,
  after: string,
  limit: number
): Generator<Y, ReadonlyArray<string>, unknown> {
  const next = yield* store.owners(priority, after, limit)
  if (next.length === limit || after === "") return next
  const again = yield* store.owners(priority, "", limit - next.length)
  return [...next, ...again.filter((owner) => !next.includes(owner))]
}

/**
 * The oldest rows and those of other owners, of each as many. The oldest are there every time, so that nothing waits for a
 * round to come by for ever.
 */
function* withOthers<Y>(
  store: Store<Y>,
  priority: Priority,
  round: ReadonlyArray<string>,
  { except, limit, nowMs, oldest }: {
    readonly oldest: ReadonlyArray<JobRow>
    readonly nowMs: number
    readonly limit: number
    readonly except: ReadonlyArray<string>
  }
): Generator<Y, ReadonlyArray<JobRow>, unknown> {
  const first = new Set(oldest.map(({ owner }) => owner))
  const others = round.filter((owner) => !first.has(owner))
  if (others.length === 0) return oldest
  const found = yield* store.dueOf(priority, others, nowMs, Math.max(1, Math.floor(limit / 2)), except)
  if (found.length === 0) return oldest
  // Of those who have something due, not of those who only wait for its time.
  const share = Math.max(1, Math.floor(limit / (first.size + new Set(found.map(({ owner }) => owner)).size)))
  const counts = new Map<string, number>()
  return [...oldest, ...found].filter(({ owner }) => {
    const count = (counts.get(owner) ?? 0) + 1
    counts.set(owner, count)
    return count <= share
  })
}

type Handlers = {
  readonly [N in OperationName]: <Y>(
    store: Store<Y>,
    input: Operations[N]["input"],
    policy: Policy
  ) => Generator<Y, Operations[N]["answer"], unknown>
}

/** A key is free when nothing has it, or only a job that ended before the window. */
const isFree = (known: Standing | undefined, nowMs: number, policy: Policy): boolean =>
  known === undefined || (known.endedMs !== null && nowMs - known.endedMs >= policy.dedupeMs)

/** The fence goes on where a replaced or forgotten row left it: a claim of that one can never fit the new one. */
function* fresh<Y>(
  store: Store<Y>,
  sent: Sent,
  replaced: Standing | undefined,
  how: Pick<Standing, "delivered" | "tries" | "dueMs">
): Generator<Y, JobRow, unknown> {
  return {
    key: sent.key,
    intake: sent.intake,
    owner: sent.owner,
    id: sent.id,
    hash: sent.hash,
    function: sent.function,
    request: sent.request,
    reply: sent.reply,
    priority: sent.priority,
    expiresMs: sent.expiresMs,
    retry: sent.retry,
    receivedMs: sent.receivedMs,
    ...how,
    state: "queued",
    attempt: 0,
    spent: 0,
    counted: false,
    fence: Math.max(replaced?.fence ?? 0, yield* store.fenceFloor()),
    instance: null,
    leaseUntilMs: null,
    startedMs: null,
    endedMs: null,
    settlement: null
  }
}

const taken = <S extends Standing>(row: S, by: Operations["claim"]["input"], counted: boolean): S => ({
  ...row,
  state: "running",
  attempt: row.attempt + (counted ? 1 : 0),
  counted,
  fence: row.fence + 1,
  instance: by.instance,
  leaseUntilMs: by.receivedMs + by.leaseMs,
  startedMs: by.receivedMs
})

/** A later try of the sender's has attempts of its own: those before it are spent. */
const tried = (row: Standing, tries: number): Standing =>
  tries > row.tries ? { ...row, tries, spent: row.attempt } : row

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
function* heldWith<Y>(store: Store<Y>, claim: Claimed): Generator<Y, Standing | undefined, unknown> {
  const row = yield* store.standing(claim.key)
  return row?.state === "running" && isOf(row, claim) ? row : undefined
}

/** Who has the row, if anybody has. */
const holdingOf = ({ fence, instance, leaseUntilMs }: Standing, nowMs: number): Holding | undefined =>
  instance === null || leaseUntilMs === null
    ? undefined
    : { instance, fence, untilMs: leaseUntilMs, isLapsed: leaseUntilMs <= nowMs }

const handlers: Handlers = {
  *submit(store, { maximum, notBeforeMs, ...sent }, policy) {
    const known = yield* store.standing(sent.key)
    if (isFree(known, sent.receivedMs, policy)) {
      if (maximum !== null && (yield* store.waiting()) >= maximum) return { _tag: "Full" }
      const dueMs = Math.max(sent.receivedMs, notBeforeMs ?? 0)
      const row = yield* fresh(store, sent, known, { delivered: false, tries: 1, dueMs })
      yield* store.insert(row)
      return { _tag: "Known", row }
    }
    const row = known?.hash === sent.hash ? yield* store.row(sent.key) : undefined
    return row === undefined ? { _tag: "Conflict" } : { _tag: "Known", row }
  },

  *claim(store, asked, policy) {
    const known = yield* store.standing(asked.key)
    if (known === undefined || isFree(known, asked.receivedMs, policy)) {
      const how = { delivered: true, tries: asked.tries, dueMs: asked.receivedMs }
      const row = taken(yield* fresh(store, asked, known, how), asked, true)
      yield* store.insert(row)
      return { _tag: "Granted", attempt: row.attempt, fence: row.fence, ofTry: 1 }
    }
    if (known.hash !== asked.hash) return { _tag: "Conflict" }
    if (known.state === "ended") {
      return { _tag: "Settled", settlement: (yield* store.row(asked.key))?.settlement ?? null }
    }
    const holding = holdingOf(known, asked.receivedMs)
    if (holding !== undefined && (asked.leavesLapsed || !holding.isLapsed)) return { _tag: "Held", ...holding }
    // Somebody had it in hand while another one ran it: the next try is for who takes it when it is due.
    const isEarly = known.dueMs > asked.receivedMs && !asked.early
    if (known.state === "queued" && (isEarly || known.tries > asked.tries)) {
      return { _tag: "Later" }
    }
    const row = tried(known, asked.tries)
    const isExhausted = row.attempt - row.spent >= asked.maxAttempts
    const next = taken(row, asked, !isExhausted)
    yield* store.stand(next)
    const { attempt, fence, spent } = next
    return { _tag: isExhausted ? "Exhausted" : "Granted", attempt, fence, ofTry: attempt - spent }
  },

  *queued(store, { except, limit, nowMs, round }) {
    const rows: Array<JobRow> = []
    const left = round === null ? null : { ...round }
    let nextMs: number | null = null
    for (const priority of priorities) {
      const oldest = yield* store.due(priority, nowMs, limit, except)
      if (left === null || oldest.length < limit || limit === 0) rows.push(...oldest)
      else {
        const round = yield* ownersFrom(store, priority, left[priority], limit)
        left[priority] = round.at(-1) ?? ""
        rows.push(...(yield* withOthers(store, priority, round, { oldest, nowMs, limit, except })))
      }
      const next = yield* store.nextDue(priority, nowMs)
      if (next !== null && (nextMs === null || next < nextMs)) nextMs = next
    }
    return { rows, nextMs, round: left }
  },

  *renew(store, { claims, leaseMs, nowMs }) {
    const lost: Array<number> = []
    for (const [index, claim] of claims.entries()) {
      if ((yield* heldWith(store, claim)) === undefined) lost.push(index)
      else yield* store.lease(claim.key, nowMs + leaseMs)
    }
    return lost
  },

  // A repeat of a settling that was written down (its caller may not have heard) answers with what is still owed.
  *settle(store, { claim, messages, nowMs, settlement }, policy) {
    const row = yield* store.standing(claim.key)
    if (row === undefined || row.state === "queued" || !isOf(row, claim)) return { _tag: "Lost" }
    if (row.state === "running") {
      yield* store.end(claim.key, nowMs, settlement)
      for (const message of messages) yield* store.owe(claim.key, claim.fence, message, nowMs)
      yield* store.prune(nowMs - policy.retainMs, prunedPerSettle)
    }
    return { _tag: "Ended", owed: yield* store.owedBy(claim.key, claim.fence) }
  },

  *release(store, { claim }) {
    const row = yield* heldWith(store, claim)
    if (row === undefined) return null
    const attempt = row.attempt - (row.counted ? 1 : 0)
    if (row.delivered && attempt === 0) yield* store.forget(row)
    else yield* store.stand(dropped(row, attempt))
    return null
  },

  *postpone(store, { claim, dueMs }) {
    const row = yield* heldWith(store, claim)
    if (row === undefined) return null
    // The next try of a delivered job is counted when its copy comes: not all that come again are later tries.
    const next = dropped({ ...row, delivered: dueMs === null }, row.attempt)
    yield* store.stand(dueMs === null ? next : { ...tried(next, row.tries + 1), dueMs })
    return null
  },

  *own(store, { claim }) {
    const row = yield* heldWith(store, claim)
    if (row !== undefined) yield* store.stand({ ...row, delivered: false })
    return row !== undefined
  },

  *lapsed(store, { limit, nowMs }) {
    return yield* store.lapsed(nowMs, limit)
  },

  // Only the very lease that was seen: one that was renewed meanwhile is somebody's who lives.
  *expire(store, { lapse, nowMs }) {
    const row = yield* heldWith(store, lapse)
    if (row === undefined || row.leaseUntilMs !== lapse.untilMs || lapse.untilMs > nowMs) return false
    yield* store.stand(dropped(row, row.attempt))
    return true
  },

  *abandon(store, { instance }) {
    const rows = yield* store.heldBy(instance)
    for (const row of rows) yield* store.stand(dropped(row, row.attempt))
    return rows.length
  },

  *holders(store) {
    return yield* store.holders()
  },

  *owed(store, { limit }) {
    return yield* store.owed(limit)
  },

  *told(store, { rows }) {
    for (const row of rows) yield* store.told(row)
    return null
  },

  *counts(store) {
    return { queued: yield* store.waiting(), owed: yield* store.owing() }
  },

  *bury(store, { claim, letter, settlement }) {
    if (claim !== null) {
      if ((yield* heldWith(store, claim)) !== undefined) yield* store.bury(letter)
      return null
    }
    yield* store.bury(letter)
    const row = yield* store.standing(letter.key)
    if (row?.state === "queued" && row.hash === letter.hash) yield* store.end(letter.key, letter.diedMs, settlement)
    return null
  },

  *dead(store, { limit }) {
    return { total: yield* store.buried(), letters: yield* store.letters(limit) }
  },

  *letter(store, { key }) {
    return (yield* store.letter(key)) ?? null
  },

  *revive(store, { key, nowMs }) {
    const letter = yield* store.letter(key)
    if (letter === undefined) return { _tag: "Missing" }
    const known = yield* store.standing(key)
    if (known !== undefined && known.state !== "ended") return { _tag: "Busy" }
    const { expiresMs, receivedMs } = letter
    // As if it were sent now: what it was given to live begins again.
    const sent = { ...letter, receivedMs: nowMs, expiresMs: expiresMs === null ? null : nowMs + expiresMs - receivedMs }
    yield* store.insert(yield* fresh(store, sent, known, { delivered: false, tries: 1, dueMs: nowMs }))
    yield* store.exhume(key)
    return { _tag: "Queued", letter }
  },

  *discard(store, { key }) {
    const isThere = (yield* store.letter(key)) !== undefined
    yield* store.exhume(key)
    return isThere
  },

  *prune(store, { nowMs }, policy) {
    const jobs = yield* store.prune(nowMs - policy.retainMs, prunedAtOnce)
    const letters = yield* store.pruneLetters(nowMs - policy.deadMs, prunedAtOnce)
    return jobs + letters
  },

  *unknown(store, { keys }) {
    const unknown: Array<string> = []
    for (const key of keys) {
      if ((yield* store.standing(key)) === undefined) unknown.push(key)
    }
    return unknown
  },

  *get(store, { key }) {
    return (yield* store.row(key)) ?? null
  },

  *list(store, filter) {
    return yield* store.list(filter)
  },

  // What is owed for it refers to no row, and is told all the same.
  *remove(store, { key }) {
    const row = yield* store.standing(key)
    if (row === undefined) return "Missing"
    if (row.state !== "ended") return "Busy"
    yield* store.forget(row)
    return "Removed"
  }
}

/** Carries one operation out, step by step. The caller makes it atomic. */
export const apply = <Y, N extends OperationName>(
  store: Store<Y>,
  policy: Policy,
  operation: Operation<N>
): Generator<Y, Answer<N>, unknown> => handlers[operation.name](store, operation.input, policy)

/** What a store that never waits answers. */
export const answerOf = <A>(step: Step<never, A>): A => {
  const last = step[Symbol.iterator]().next()
  if (last.done !== true) throw new Error("a store that must answer at once has waited")
  return last.value
}

/** For a store that never waits. */
export const applySync = <N extends OperationName>(
  store: Store<never>,
  policy: Policy,
  operation: Operation<N>
): Answer<N> => answerOf(apply(store, policy, operation))
