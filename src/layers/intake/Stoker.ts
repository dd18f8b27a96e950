/** The door of Stoker's own AMQP dialect: one quorum queue per priority, delays, tries with backoff, dead letters. */
import { Clock, Effect, Exit, Fiber, FiberSet, Option, Result, type Scope, Stream } from "effect"
import { decode, intake, isBare, type Submission, type Trust } from "../../schemas/dialects/StokerJob.ts"
import { keyText, Owner } from "../../schemas/Ids.ts"
import { keyOf } from "../../schemas/Job.ts"
import { describe, type Outcome } from "../../schemas/Outcome.ts"
import {
  backoffOf,
  priorities,
  type Priority,
  type PriorityWeights,
  type RetryPolicy,
  standardRetry,
  standardWeights
} from "../../schemas/Terms.ts"
import { Amqp, type AmqpDelivery } from "../amqp/Amqp.ts"
import * as Keeping from "../deadletters/Keeping.ts"
import type { Emitter } from "../emitter/Emitter.ts"
import * as AmqpHandOver from "./AmqpHandOver.ts"
import type { Delivery, Intake } from "./Intake.ts"
import { idOfMessage } from "./MessageId.ts"
import { requestHash } from "./RequestHash.ts"
import * as StokerRefusal from "./StokerRefusal.ts"
import { functionsExchange, functionsTopology, jobsTopology, queueOf } from "./StokerTopology.ts"
import * as StokerWaiting from "./StokerWaiting.ts"

export interface StokerIntakeOptions {
  /** Jobs that run at once. Each level alone keeps them busy; how much more it may hold is by its weight. */
  readonly slots: number
  /** Tells the senders of messages that become no run. */
  readonly emitter: Pick<Emitter, "send">
  /** The user of our own connection. Workers and operators trust it to name owners. */
  readonly user: string
  /** Further users who may name owners. */
  readonly spokesmen?: ReadonlyArray<string>
  /** Whose jobs are those without a user the broker vouches for. Default `stoker`. */
  readonly defaultOwner?: Owner
  /** Refuse messages without such a user. Default false. */
  readonly requireUser?: boolean
  readonly weights?: PriorityWeights
  /** For messages that do not say otherwise. */
  readonly retry?: RetryPolicy
  /** How long the broker lets a delivery be held, with a margin. Milliseconds, default 25 minutes. */
  readonly holdMs?: number
  /** The journal of this worker may own what would be held longer, although no other worker can read it. */
  readonly ownLongJobs?: boolean
  /** Bytes. Default 16 MiB. */
  readonly maximumBytes?: number
  /** Default `stoker.jobs`. */
  readonly queue?: string
  /** Default `stoker.dead`. */
  readonly deadQueue?: string
}

/** A delivery of this door tells all there is to tell. */
export type StokerDelivery = Delivery & Required<Pick<Delivery, "attempt" | "priority" | "hold">> & {
  readonly retry: (outcome: Outcome) => Effect.Effect<boolean>
}

export interface StokerIntake extends Intake {
  readonly deliveries: Stream.Stream<StokerDelivery>
}

/** Given back so often, a job is at fault, not workers that come and go. */
const mostReturns = 50
/** Milliseconds aside after it was given back more than once: doubled each time, a minute at most. */
const returnPause = (returns: number) => Math.min(1000 * 2 ** Math.min(returns - 1, 10), 60_000)
/** A closing worker waits so long for the broker to take the copy of what it gives back. */
const returnLimit = "2 seconds"

/**
 * Deliveries each level may hold at once: the lightest as many as there are slots, the others by their weights. All wait
 * in one line for a slot, and one that has ended is followed by one of its level: so these are the shares of the slots
 * while every level has jobs.
 */
export const shares = (slots: number, weights: PriorityWeights): Readonly<Record<Priority, number>> => {
  const least = Math.min(weights.high, weights.normal, weights.low)
  const share = (level: Priority) => Math.ceil((slots * weights[level]) / least)
  return { high: share("high"), normal: share("normal"), low: share("low") }
}

const expired: StokerRefusal.Refusal = {
  reason: "expired in the queue",
  remedy: "Send it again with more time to live, or start more workers."
}

/** The intake. What it has begun to settle goes on until the scope ends, whether or not anybody takes deliveries. */
export const make = Effect.fnUntraced(function*(
  options: StokerIntakeOptions
): Effect.fn.Return<StokerIntake, never, Amqp | Scope.Scope> {
  const amqp = yield* Amqp
  const deadQueue = options.deadQueue ?? Keeping.defaultDeadQueue
  const waiting = yield* StokerWaiting.make(options.user)
  const settling = yield* FiberSet.make<void>()
  const weights = options.weights ?? standardWeights
  const trust: Trust = {
    defaultOwner: options.defaultOwner ?? Owner.make(intake),
    spokesmen: [options.user, ...options.spokesmen ?? []],
    requireUser: options.requireUser ?? false
  }
  const { keep, refuse } = yield* StokerRefusal.make({ trust, deadQueue, user: options.user, emitter: options.emitter })

  /** Beside the deliveries that follow it. Acked last: should we die before, it comes again, and all is done again. */
  const settle = (delivery: AmqpDelivery, work: Effect.Effect<void>) =>
    FiberSet.run(
      settling,
      work.pipe(
        Effect.andThen(delivery.ack),
        Effect.catchCause((cause) => Effect.logError("a message is not settled, it stays with the broker", cause))
      )
    )

  const putAside = (raw: AmqpDelivery, submission: Submission, next: Partial<StokerWaiting.Terms>, delayMs: number) =>
    Effect.flatMap(Clock.currentTimeMillis, (nowMs) => {
      const { attempt, returns } = submission
      const notBeforeMs = Math.max(submission.notBeforeMs ?? 0, nowMs + delayMs)
      return waiting.putAside(raw, submission, { attempt, returns, notBeforeMs, ...next }, nowMs)
    })

  /** Once is a worker that goes; more often is a matter of the job. The broker's own requeueing is no way to wait. */
  const giveBack = (raw: AmqpDelivery, submission: Submission) => {
    if (!raw.redelivered && submission.returns === 0) return raw.giveBack
    const returns = submission.returns + 1
    const copied = returns > mostReturns
      ? keep(raw, {
        reason: `workers gave it back ${mostReturns} times without running it`,
        remedy: "See the workers' logs, then `stoker dead retry`."
      })
      : putAside(raw, submission, { returns }, returnPause(returns))
    // On a fiber of its own: who gives back is often being interrupted, where a time limit alone would not hold.
    return Effect.gen(function*() {
      const copying = yield* FiberSet.run(settling, copied)
      const exit = yield* Effect.timeoutOption(Fiber.await(copying), returnLimit)
      yield* Option.isSome(exit) && Exit.isSuccess(exit.value) ? raw.ack : raw.giveBack
    })
  }

  const retry = (raw: AmqpDelivery, submission: Submission) =>
    Effect.fn("StokerIntake.retry")(function*(outcome: Outcome) {
      const { attempt, isBare, job, retry } = submission
      if (!retry.on.includes(outcome._tag)) {
        // Who publishes events need not hear of what becomes of them.
        if (isBare && outcome._tag === "Rejected") {
          const { reason, remedy } = outcome
          // Its id is settled by now: the letter itself would only be answered again.
          yield* keep(raw, { reason, remedy: `${remedy} Then publish it anew, under another message id.` })
        }
        return false
      }
      if (attempt < retry.maxAttempts) {
        const delayMs = backoffOf(retry, attempt)
        yield* Effect.logInfo(
          `job ${keyText(keyOf(job))}, try ${attempt + 1} in ${delayMs} ms: it ${describe(outcome)}`
        )
        yield* putAside(raw, submission, { attempt: attempt + 1 }, delayMs)
        return true
      }
      if (retry.maxAttempts > 1) {
        yield* keep(raw, {
          reason: `gave up after ${attempt} tries: ${describe(outcome)}`,
          remedy: "Repair what made it fail, then `stoker dead retry`."
        })
      }
      return false
    })

  const deliveryOf = (raw: AmqpDelivery, submission: Submission, priority: Priority): StokerDelivery => ({
    priority,
    job: submission.job,
    hash: requestHash(submission.job),
    reply: submission.reply,
    redelivered: raw.redelivered,
    attempt: submission.attempt,
    ack: raw.ack,
    reject: (reason) =>
      keep(raw, { reason, remedy: "Send it again, corrected or under another id." }).pipe(Effect.andThen(raw.ack)),
    giveBack: giveBack(raw, submission),
    retry: retry(raw, submission),
    hold: { limitMs: options.holdMs ?? 25 * 60_000, journalMayOwn: options.ownLongJobs ?? false }
  })

  /** As the dialect reads it; one that came by the functions' exchange with the key that says which one it is for. */
  const messageOf = (raw: AmqpDelivery) => {
    const message = {
      ...StokerRefusal.messageOf(raw),
      ...(raw.exchange === functionsExchange(options.queue) ? { functionKey: raw.routingKey } : {})
    }
    return isBare(message) ? { ...message, messageId: idOfMessage(message.messageId) } : message
  }

  /** The message as a delivery with its last moment, or nothing: then it is being refused, or put aside. */
  const accept = Effect.fnUntraced(function*(raw: AmqpDelivery, priority: Priority) {
    const nowMs = yield* Clock.currentTimeMillis
    const decoded = decode(messageOf(raw), {
      trust,
      retry: options.retry ?? standardRetry,
      maximumBytes: options.maximumBytes ?? 16 * 1024 * 1024,
      nowMs
    })
    if (Result.isFailure(decoded)) {
      yield* settle(raw, refuse(raw, decoded.failure))
      return undefined
    }
    const submission = decoded.success
    if ((submission.notBeforeMs ?? 0) > nowMs) {
      yield* settle(raw, putAside(raw, submission, {}, 0))
      return undefined
    }
    // The journal may have a row of it, from a try or a worker before.
    const isAgain = raw.redelivered || submission.attempt > 1 || submission.returns > 0
    return { ...deliveryOf(raw, submission, priority), raw, isAgain, deadlineMs: submission.expiresAtMs }
  })

  const lateAgain = (raw: AmqpDelivery, delivery: StokerDelivery, expiresAtMs: number): StokerDelivery => ({
    ...delivery,
    expiresAtMs,
    retry: (outcome) => Effect.as(outcome._tag === "Rejected" ? keep(raw, expired) : Effect.void, false)
  })

  const prefetch = shares(options.slots, weights)
  const deliveries = AmqpHandOver.merge(priorities.map((level) => {
    const queue = queueOf(level, options.queue)
    const topology = { ...jobsTopology(queue, deadQueue), ...functionsTopology(level, options.queue) }
    return {
      weight: weights[level],
      deliveries: amqp.consume(queue, { prefetch: prefetch[level], topology }).pipe(
        Stream.mapEffect((raw) => accept(raw, level)),
        Stream.filter((accepted) => accepted !== undefined)
      )
    }
  })).pipe(
    // Judged when somebody takes it: it may have waited here as well.
    Stream.mapEffect(Effect.fnUntraced(function*({ deadlineMs, isAgain, raw, ...delivery }) {
      if (deadlineMs === undefined || (yield* Clock.currentTimeMillis) < deadlineMs) return delivery
      // Then that row must end: the job's actor sees that it is too late.
      if (isAgain) return lateAgain(raw, delivery, deadlineMs)
      yield* settle(raw, refuse(raw, { ...expired, id: delivery.job.id }))
      return undefined
    })),
    Stream.filter((delivery) => delivery !== undefined)
  )

  return { name: intake, deliveries }
})
