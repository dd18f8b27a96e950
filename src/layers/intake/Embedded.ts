/** The embedded queue's door: jobs are rows of the journal in state `queued`, put there by this process or another. */
import { Context, Effect, Layer, Queue, Random, Stream } from "effect"
import { IntakeName, keyText } from "../../schemas/Ids.ts"
import { keyOf } from "../../schemas/Job.ts"
import { describe, type Outcome } from "../../schemas/Outcome.ts"
import { backoffOf, priorities, type Priority } from "../../schemas/Terms.ts"
import * as Turns from "../../schemas/Turns.ts"
import { Settings } from "../config/Settings.ts"
import { type Claim, type Due, Journal, type OwnersRound, type QueuedJob, type Why } from "../journal/Journal.ts"
import { persist } from "../journal/Persist.ts"
import { nowMs } from "../Now.ts"
import type { Delivery, Intake } from "./Intake.ts"

export const NAME = IntakeName.make("embedded")

/** How often rows are looked for of which nobody has told us, in milliseconds. */
const pollMs = 200

/** Of several workers that are told of one job. */
const mostDelayMs = 20

/** Rows of each priority that are read at once, twice as many where owners take turns; they wait here for theirs. */
const page = 16

export class Embedded extends Context.Service<Embedded, {
  readonly intake: Intake
  /** A row was written: look now. */
  readonly wake: Effect.Effect<void>
}>()("stoker/layers/intake/Embedded") {}

/** Owners whose last turn is remembered; one who is forgotten comes before the others. */
const rememberedOwners = 1024

/** One level of priority. */
interface Lane extends Turns.Lane {
  readonly level: Priority
  /** Read and not yet handed over, those of one owner in their order. */
  jobs: ReadonlyArray<QueuedJob>
  /** Owners who had a turn and when, the last one last. It outlives `jobs`, which may be read again after each one. */
  readonly served: Map<string, number>
  turns: number
}

const ownerOf = ({ request: { job } }: QueuedJob): string => job.owner

/** Takes the first job of whoever had no turn for longest. */
const shift = (lane: Lane): QueuedJob | undefined => {
  const turnOf = (queued: QueuedJob) => lane.served.get(ownerOf(queued)) ?? 0
  const [first, ...others] = lane.jobs
  if (first === undefined) return undefined
  const chosen = others.reduce((best, job) => turnOf(job) < turnOf(best) ? job : best, first)
  lane.jobs = lane.jobs.filter((job) => job !== chosen)
  lane.served.delete(ownerOf(chosen))
  lane.turns += 1
  lane.served.set(ownerOf(chosen), lane.turns)
  const [oldest] = lane.served.keys()
  if (oldest !== undefined && lane.served.size > rememberedOwners) lane.served.delete(oldest)
  return chosen
}

const nameOf = ({ request: { job } }: QueuedJob) => keyText(keyOf(job))

const make = Effect.gen(function*() {
  const journal = yield* Journal
  const { weights } = yield* Settings
  const bell = yield* Queue.sliding<void>(1)
  // A row stays `queued` until its claim: what was handed over is not handed over again meanwhile.
  const handed = new Set<string>()
  const lanes = priorities.map((level): Lane => ({
    level,
    weight: weights[level],
    credit: 0,
    jobs: [],
    served: new Map(),
    turns: 0
  }))
  let round: OwnersRound = { high: "", normal: "", low: "" }
  let lookAtMs = 0
  let isAway = false

  const bury = (queued: QueuedJob, why: Why, claim?: Claim) =>
    persist("a dead letter", journal.bury(queued, why, claim))

  const retry = (queued: QueuedJob) =>
    Effect.fn("Embedded.retry")(function*(outcome: Outcome, claim: Claim) {
      const { terms: { retry }, tries } = queued
      if (outcome._tag === "Rejected") {
        yield* bury(queued, outcome, claim)
        return false
      }
      if (!retry.on.includes(outcome._tag)) return false
      if (tries < retry.maxAttempts) {
        const delayMs = backoffOf(retry, tries)
        yield* Effect.logInfo(`job ${nameOf(queued)}, try ${tries + 1} in ${delayMs} ms: it ${describe(outcome)}`)
        yield* persist("a retry", journal.postpone(claim, (yield* nowMs) + delayMs))
        return true
      }
      if (retry.maxAttempts > 1) {
        const reason = `gave up after ${tries} tries: ${describe(outcome)}`
        yield* bury(queued, { reason, remedy: "Repair what made it fail, then `stoker dead retry`." }, claim)
      }
      return false
    })

  const deliveryOf = (queued: QueuedJob): Delivery => {
    const { request, terms: { expiresAtMs, priority }, tries } = queued
    const done = Effect.sync(() => void handed.delete(nameOf(queued)))
    return {
      ...request,
      redelivered: false,
      fromJournal: true,
      priority,
      attempt: tries,
      ...(expiresAtMs === undefined ? {} : { expiresAtMs }),
      // Settling is the acknowledgement: the row has left `queued`.
      ack: done,
      reject: (reason) =>
        Effect.andThen(bury(queued, { reason, remedy: "Send it again, corrected or under another id." }), done),
      giveBack: done,
      retry: retry(queued)
    }
  }

  const look = Effect.gen(function*() {
    const { jobs, nextMs, round: left = round } = yield* journal.queued(page, [...handed], round).pipe(
      Effect.tap(() => isAway ? Effect.logInfo("the embedded queue can be read again") : Effect.void),
      // Said once: this comes again several times a second.
      Effect.tapError(({ message }) =>
        isAway ? Effect.logDebug(message) : Effect.logWarning(`the embedded queue cannot be read: ${message}`)
      ),
      Effect.onExit(({ _tag }) => Effect.sync(() => void (isAway = _tag === "Failure"))),
      Effect.orElseSucceed((): Due => ({ jobs: [] }))
    )
    round = left
    for (const lane of lanes) lane.jobs = jobs.filter(({ terms }) => terms.priority === lane.level)
    // Others may write rows at any time; what we know of is taken when it is due, not when we look by chance.
    lookAtMs = Math.min((yield* nowMs) + pollMs, nextMs ?? Number.POSITIVE_INFINITY)
    return jobs.length
  })

  const ring = Effect.tap(Queue.take(bell), () => Effect.sync(() => void (lookAtMs = 0)))

  /** The next one, whenever that is. */
  const take = Effect.gen(function*() {
    while (true) {
      if (Queue.sizeUnsafe(bell) > 0) yield* ring
      const isDue = (yield* nowMs) >= lookAtMs
      const found = isDue || lanes.every(({ jobs }) => jobs.length === 0) ? yield* look : 0
      const lane = Turns.next(lanes.filter(({ jobs }) => jobs.length > 0))
      const queued = lane === undefined ? undefined : shift(lane)
      if (queued !== undefined) {
        handed.add(nameOf(queued))
        return deliveryOf(queued)
      }
      if (found === 0) yield* Effect.timeoutOption(ring, Math.max(lookAtMs - (yield* nowMs), 1))
    }
  })

  // Workers that share a journal all hear of a job: not all of them should look before the first has claimed it.
  const apart = journal.scope === "shared"
    ? Effect.flatMap(Random.nextIntBetween(0, mostDelayMs), Effect.sleep)
    : Effect.void
  // What is told while there is enough at hand need not be looked at yet.
  const hear = Effect.suspend(() =>
    lanes.every(({ jobs }) => jobs.length === 0) ? Queue.offer(bell, undefined) : Effect.void
  )
  const listening = Stream.runForEach(journal.arrivals, () => Effect.andThen(apart, hear))

  return Embedded.of({
    intake: {
      name: NAME,
      // Opened again, it may find rows that were on their way when it broke: the dispatcher joins what it has already.
      deliveries: Stream.suspend(() => {
        handed.clear()
        lookAtMs = 0
        return Stream.unwrap(Effect.as(Effect.forkScoped(listening), Stream.fromEffectRepeat(take)))
      })
    },
    wake: Effect.asVoid(Queue.offer(bell, undefined))
  })
})

export const layer = Layer.effect(Embedded, make)
