/**
 * One job from delivery to ack. Whatever happens it ends in exactly one outcome, which is written down together with
 * the messages it owes before anybody is told, and told before the delivery is acked: after a crash on any line,
 * redelivery or the outbox finishes it.
 */
import { Deferred, Effect, Fiber, Queue } from "effect"
import type { StopRequest } from "../layers/executor/Executor.ts"
import type { Delivery } from "../layers/intake/Intake.ts"
import { type ClaimLost, Journal } from "../layers/journal/Journal.ts"
import { monotonicNanos } from "../layers/Now.ts"
import { keyText } from "../schemas/Ids.ts"
import { keyOf } from "../schemas/Job.ts"
import { Outcome } from "../schemas/Outcome.ts"
import type { Usage } from "../schemas/Usage.ts"
import type { Mailbox } from "./Actor.ts"
import type { Admission, Applicant } from "./Admission.ts"
import { Desk } from "./Desk.ts"
import * as Books from "./JobBooks.ts"
import { plan } from "./JobPlan.ts"
import { unrun } from "./JobResult.ts"
import { execute } from "./JobRun.ts"
import { around, attempting, JobTelemetry } from "./JobTelemetry.ts"
import * as Lapses from "./Lapses.ts"
import * as Teller from "./Teller.ts"

export type JobMessage =
  | { readonly _tag: "Stop"; readonly request: StopRequest }
  /** The same request was delivered again while it runs: it is acked together with the first. */
  | { readonly _tag: "Attach"; readonly delivery: Delivery }
  /** Another worker has the job now: nothing more may be written. */
  | { readonly _tag: "ClaimLost" }

const micros = (from: bigint, to: bigint) => Number((to - from) / 1000n)

/** The job's life once there is room for it, up to the confirmed telling of its outcome. */
const live = Effect.fnUntraced(
  function*(delivery: Delivery, teller: Teller.Teller, stop: Deferred.Deferred<StopRequest>, receivedAt: bigint) {
    const { job } = delivery
    const journal = yield* Journal
    const desk = yield* Desk
    const asked = yield* monotonicNanos
    const telemetry = yield* JobTelemetry
    const answer = yield* telemetry.claiming(Books.claim(delivery))
    const claimed = yield* monotonicNanos
    switch (answer._tag) {
      case "Refused":
        yield* Books.refuse(delivery, answer.reason)
        return "rejected" as const
      case "Settled":
        yield* Books.retell(teller, answer.settlement)
        return "settled" as const
      case "Held":
        return answer.isLapsed && (yield* Lapses.end({ ...answer, key: keyOf(job) }))
          ? "free" as const
          : "held" as const
      // Its row will be handed over again, when it is due.
      case "Later":
        return "settled" as const
      case "Exhausted":
        {
          const lost = Outcome.cases.Lost.make({ attempts: answer.attempts })
          teller.attempt(answer.claim.attempt)
          telemetry.granted(answer.claim.attempt)
          if (!(yield* Books.putOff(delivery, answer.claim, lost))) {
            yield* Books.settle(answer.claim, teller, unrun(lost))
          }
        }
        return "settled" as const
      case "Granted": {
        const held = answer.claim
        teller.attempt(held.attempt)
        telemetry.granted(held.attempt)
        yield* Effect.acquireRelease(
          Effect.sync(() => desk.claims.set(keyText(held.key), held)),
          () => Effect.sync(() => desk.claims.delete(keyText(held.key)))
        )
        // The worker is being drained: somebody else runs it, and this try does not count. Registered before its sandbox
        // is, so done when that is gone: who takes the job must not run it beside this one.
        let isUnderway = true
        yield* Effect.addFinalizer(() => isUnderway ? Effect.ignore(journal.release(held)) : Effect.void)
        const result = yield* Effect.gen(function*() {
          if (Deferred.isDoneUnsafe(stop)) {
            return unrun(Outcome.cases.Stopped.make({ reason: (yield* Deferred.await(stop)).reason }))
          }
          const late = yield* Books.tooLate(delivery)
          if (late !== undefined) return late
          const assigned = yield* Effect.result(plan(job))
          if (assigned._tag === "Failure") return assigned.failure
          const refusal = yield* Books.longHeld(delivery, held, assigned.success)
          if (refusal !== undefined) return refusal
          const { firstAttempt } = answer
          const attempt = { attempt: held.attempt, ...(firstAttempt === undefined ? {} : { firstAttempt }) }
          return yield* execute(job, attempt, assigned.success, stop, teller)
        }).pipe(
          Effect.catchDefect((defect) =>
            Effect.logError("a job ended in a defect", defect).pipe(
              Effect.as(unrun(Outcome.cases.SandboxFailed.make({
                driver: "worker",
                reason: `internal error: ${String(defect)}`,
                remedy: "This is a defect of Stoker; please report it with the worker's log."
              })))
            )
          ),
          attempting
        )
        isUnderway = false
        if (yield* Books.putOff(delivery, held, result.outcome)) return "settled" as const
        const usage: Usage = {
          ...result.usage,
          queuedMicros: micros(receivedAt, asked),
          claimMicros: micros(asked, claimed)
        }
        yield* Books.settle(held, teller, { ...result, usage })
        return "settled" as const
      }
    }
  },
  Effect.scoped
)

/** It came when the job had parted from its deliveries: this one comes again, and is answered then. */
export const unheard = (message: JobMessage): Effect.Effect<void> =>
  message._tag === "Attach" ? message.delivery.giveBack : Effect.void

/** Reads the mailbox beside the job. */
const listen = (
  mailbox: Mailbox<JobMessage>,
  deliveries: Array<Delivery>,
  stop: Deferred.Deferred<StopRequest>,
  lost: Deferred.Deferred<void>
) =>
  Effect.forever(Effect.flatMap(Queue.take(mailbox), (message) => {
    switch (message._tag) {
      case "Stop":
        return Effect.asVoid(Deferred.succeed(stop, message.request))
      case "Attach":
        return Effect.sync(() => void deliveries.push(message.delivery))
      case "ClaimLost":
        return Effect.asVoid(Deferred.succeed(lost, undefined))
    }
  }))

/** Asked for again while another worker has it: how long before the journal is asked once more. */
const HELD_PAUSE = "2 seconds"

/** The behaviour of a job actor. */
export const run = (delivery: Delivery) => (mailbox: Mailbox<JobMessage>) =>
  Effect.gen(function*() {
    const desk = yield* Desk
    const stop = yield* Deferred.make<StopRequest>()
    const lost = yield* Deferred.make<void>()
    const deliveries = [delivery]
    const applicant: Applicant = { owner: delivery.job.owner, priority: delivery.priority ?? "normal" }
    const receivedAt = yield* monotonicNanos
    const telemetry = yield* JobTelemetry
    const listening = yield* Effect.forkScoped(Effect.ignore(listen(mailbox, deliveries, stop, lost)))
    const teller = yield* Teller.make(telemetry.delivery, desk.watchers)

    const body = Effect.gen(function*() {
      yield* teller.tell({ _tag: "Received" })
      while (true) {
        const end = yield* admitted(desk.admission.admit(applicant), stop, live(delivery, teller, stop, receivedAt))
        if (end === "held" && delivery.fromJournal === true) return "elsewhere"
        if (end === "held") yield* Effect.sleep(HELD_PAUSE)
        else if (end !== "free") return end
      }
    })
    const lostClaim: Effect.Effect<"lost", ClaimLost> = Effect.as(Deferred.await(lost), "lost")
    const giveBack = Effect.suspend(() =>
      Effect.andThen(
        telemetry.parted("given_back", deliveries.length),
        Effect.forEach(deliveries, ({ giveBack }) => giveBack, { discard: true })
      )
    )
    const end = yield* Effect.raceFirst(body, lostClaim).pipe(
      Effect.catchTag("ClaimLost", () => Effect.succeed("lost" as const)),
      Effect.onInterrupt(() => giveBack)
    )
    // Whoever joins from now on is `unheard`.
    yield* Fiber.interrupt(listening)
    switch (end) {
      case "settled":
        yield* telemetry.parted("acked", deliveries.length)
        return yield* Effect.forEach(deliveries, ({ ack }) => ack, { discard: true })
      case "rejected":
        // Those that joined are no better, but each is to be kept with its reason.
        yield* Effect.forEach(deliveries.slice(1), ({ giveBack }) => giveBack, { discard: true })
        return yield* telemetry.parted("rejected", 1)
      case "elsewhere":
        return yield* giveBack
      case "lost":
        telemetry.claimLost()
        yield* attempting(Effect.logWarning("the job's claim was lost to another worker; nothing was written"))
        return yield* giveBack
    }
  }).pipe(around(delivery), Effect.scoped)

/** Waits for a slot and lives in it. A stop that comes before there is room does not wait for it. */
const admitted = <A, E, R>(
  admit: ReturnType<Admission["admit"]>,
  stop: Deferred.Deferred<StopRequest>,
  life: Effect.Effect<A, E, R>
) =>
  Effect.suspend(() => {
    let inside = false
    const waiting = admit(Effect.suspend(() => {
      inside = true
      return Effect.map(life, (end) => ({ end }))
    }))
    const stopped = Effect.flatMap(Deferred.await(stop), () => inside ? Effect.never : Effect.undefined)
    return Effect.flatMap(Effect.raceFirst(waiting, stopped), (lived) =>
      lived === undefined ? life : Effect.succeed(lived.end))
  })
