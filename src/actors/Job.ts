/**
 * One job from delivery to ack. Whatever happens it ends in exactly one outcome, which is written down together with
 * the messages it owes before anybody is told, and told before the delivery is acked: after a crash on any line,
 * redelivery or the outbox finishes it.
 */
import {
  Cause,
  Clock,
  Deferred,
  Duration,
  Effect,
  Exit,
  Option,
  Queue,
  Schedule,
  Scope,
  Semaphore,
  Stream
} from "effect"
import { Settings } from "../layers/config/Settings.ts"
import { Executor, type Run, type StopRequest } from "../layers/executor/Executor.ts"
import { Functions } from "../layers/functions/Functions.ts"
import { Host } from "../layers/host/Host.ts"
import type { Delivery } from "../layers/intake/Intake.ts"
import { type Claim, type ClaimAnswer, type ClaimLost, Journal, JournalError } from "../layers/journal/Journal.ts"
import { Log, type LogError, type LogWriter } from "../layers/log/Log.ts"
import { nowMs } from "../layers/Now.ts"
import { within } from "../layers/Release.ts"
import { keyText } from "../schemas/Ids.ts"
import { type Job, keyOf } from "../schemas/Job.ts"
import type { StreamSummary } from "../schemas/JobEvent.ts"
import { resolve } from "../schemas/Limits.ts"
import { describe, Outcome } from "../schemas/Outcome.ts"
import type { Program } from "../schemas/Program.ts"
import type { SandboxClass } from "../schemas/SandboxClass.ts"
import type { Settlement } from "../schemas/Settlement.ts"
import { noUsage, type Usage } from "../schemas/Usage.ts"
import type { Mailbox } from "./Actor.ts"
import { Desk } from "./Desk.ts"
import { Outbox } from "./Outbox.ts"
import * as Teller from "./Teller.ts"

export type JobMessage =
  | { readonly _tag: "Stop"; readonly request: StopRequest }
  /** The same request was delivered again while it runs: it is acked together with the first. */
  | { readonly _tag: "Attach"; readonly delivery: Delivery }
  /** Another worker has the job now: nothing more may be written. */
  | { readonly _tag: "ClaimLost" }

/** The journal or its disk is away: nothing is lost by waiting, so this goes on until it is back. */
const untilItWorks = Schedule.exponential("50 millis").pipe(
  Schedule.modifyDelay(({ duration }) => Effect.succeed(Duration.min(duration, Duration.seconds(5)))),
  Schedule.jittered
)

/** Says once that it waits, and once that it goes on; between them at Debug. */
const persist = <A, E>(what: string, operation: Effect.Effect<A, E>): Effect.Effect<A, Exclude<E, JournalError>> =>
  Effect.suspend(() => {
    let waits = false
    return operation.pipe(
      Effect.tapError((error) => {
        if (!(error instanceof JournalError)) return Effect.void
        const told = waits ? Effect.logDebug(error.message) : Effect.logError(`${what} waits: ${error.message}`)
        waits = true
        return told
      }),
      Effect.retry({ schedule: untilItWorks, while: (error) => error instanceof JournalError }),
      Effect.tap(() => waits ? Effect.logInfo(`${what} went through`) : Effect.void)
    )
  }) as Effect.Effect<A, Exclude<E, JournalError>>

/** What came of running it, not yet written down. */
interface Result {
  readonly outcome: Outcome
  readonly usage: Usage
  readonly output: ReadonlyArray<StreamSummary>
  readonly startedAtMs?: number
}

const unrun = (outcome: Outcome): Result => ({ outcome, usage: noUsage, output: [] })

const rejected = (reason: string, remedy: string) => unrun(Outcome.cases.Rejected.make({ reason, remedy }))

const diskTrouble = (error: LogError) =>
  Outcome.cases.SandboxFailed.make({ driver: "log", reason: error.reason, remedy: error.remedy })

const micros = (from: bigint, to: bigint) => Number((to - from) / 1000n)
const monotonic = Clock.clockWith((clock) => clock.currentTimeNanos)

/** Class, limits and program of a job, or why it can never run. */
const plan = Effect.fnUntraced(function*(job: Job) {
  const { classes, defaultClass } = yield* Settings
  const wanted = job.class ?? defaultClass
  const sandboxClass = classes.find(({ name }) => name === wanted)
  if (sandboxClass === undefined) {
    return yield* Effect.fail(
      rejected(`there is no sandbox class ${wanted}`, `Use one of: ${classes.map(({ name }) => name).join(", ")}.`)
    )
  }
  const { ceiling, defaults } = sandboxClass
  const run = yield* Effect.mapError(
    resolve(ceiling, defaults, job.limits),
    (error) => rejected(error.message, "`stoker doctor` shows the classes and their limits.")
  )
  const program = yield* Effect.mapError(
    (yield* Functions).program(job, { compile: ceiling, run }),
    (error) => rejected(`${error.function}: ${error.reason}`, error.remedy)
  )
  return { class: sandboxClass, program }
})

/** Follows a run to its outcome: bytes to the log, facts to the teller. */
const follow = Effect.fnUntraced(function*(run: Run, writer: LogWriter, teller: Teller.Teller) {
  let result: Result | undefined
  const failed = yield* Effect.exit(Stream.runForEach(run.events, (event) => {
    switch (event._tag) {
      case "Output":
        return writer.append(event.stream, event.bytes)
      case "Ready":
        return teller.tell({ _tag: "Running" })
      case "PhaseStarted":
        return teller.tell({ _tag: "PhaseStarted", phase: event.phase })
      case "PhaseEnded":
        return teller.tell({ _tag: "PhaseEnded", phase: event.phase, usage: event.usage })
      case "Finished":
        result = { ...unrun(event.outcome), usage: event.usage }
        return Effect.void
    }
  }))
  if (Exit.isFailure(failed)) {
    const error = Cause.findErrorOption(failed.cause)
    if (Option.isNone(error)) return yield* Effect.failCause(failed.cause as Cause.Cause<never>)
    return unrun(diskTrouble(error.value))
  }
  return result ?? unrun(Outcome.cases.SandboxFailed.make({
    driver: "executor",
    reason: "the run ended without an outcome",
    remedy: "This is a defect of Stoker; please report it."
  }))
})

interface Assigned {
  readonly class: SandboxClass
  readonly program: Program
}

/** Runs what was planned; its sandbox goes as soon as the outcome is known, while that is being written down. */
const execute = Effect.fnUntraced(
  function*(
    job: Job,
    attempt: number,
    assigned: Assigned,
    stop: Deferred.Deferred<StopRequest>,
    teller: Teller.Teller
  ) {
    const outer = yield* Effect.scope
    const startedAtMs = yield* nowMs
    const keepBytes = Math.max(...assigned.program.phases.map(({ limits }) => limits.outputBytes))
    const writer = yield* Effect.result((yield* Log).open(keyOf(job), { attempt, keepBytes }))
    if (writer._tag === "Failure") return unrun(diskTrouble(writer.failure))

    const place = yield* Scope.make()
    yield* Scope.addFinalizer(outer, Scope.close(place, Exit.void).pipe(within("the job's sandbox", "15 seconds")))
    const run = yield* (yield* Executor).start({ job, attempt, ...assigned }).pipe(Scope.provide(place))
    const stopper = yield* Effect.forkIn(Effect.flatMap(Deferred.await(stop), run.stop), place)
    const result = yield* follow(run, writer.success, teller)
    yield* Effect.forkIn(Scope.close(place, Exit.void).pipe(within("the job's sandbox", "15 seconds")), outer)
    stopper.interruptUnsafe()

    const output = yield* Effect.result(writer.success.end)
    return output._tag === "Failure"
      ? { ...result, outcome: diskTrouble(output.failure), startedAtMs }
      : { ...result, output: output.success, startedAtMs }
  }
)

/** A request with another one's id: told to its own sender and kept as a dead letter; the other job hears nothing. */
const refuse = Effect.fnUntraced(function*(delivery: Delivery, reason: string) {
  const teller = yield* Teller.make(delivery, undefined)
  const outcome = Outcome.cases.Rejected.make({ reason, remedy: "Send it again under an id of its own." })
  const { event, owed } = yield* teller.conclude({ _tag: "Ended", outcome, usage: noUsage, output: [] })
  yield* teller.settle(event, owed.map((message, row) => ({ row, message })))
  yield* delivery.reject(reason)
})

/** Tells an outcome that was written down before to whoever asks again. */
const retell = Effect.fnUntraced(function*(teller: Teller.Teller, { attempt, outcome, output, usage }: Settlement) {
  teller.attempt(attempt)
  const { event, owed } = yield* teller.conclude({ _tag: "Ended", outcome, usage, output })
  yield* teller.settle(event, owed.map((message, row) => ({ row, message })))
})

type Admission =
  | { readonly _tag: "Refused"; readonly reason: string }
  | ClaimAnswer

const claim = Effect.fnUntraced(function*(delivery: Delivery) {
  const journal = yield* Journal
  const { leaseMs, maxAttempts } = yield* Settings
  const { instance } = yield* Host
  const attempts = maxAttempts * (delivery.attempt ?? 1)
  return yield* persist("a claim", journal.claim(delivery, { instance, leaseMs, maxAttempts: attempts })).pipe(
    Effect.catch((conflict) => Effect.succeed<Admission>({ _tag: "Refused", reason: conflict.message }))
  )
})

const settle = Effect.fnUntraced(function*(held: Claim, teller: Teller.Teller, result: Result) {
  const journal = yield* Journal
  const outbox = yield* Outbox
  const { event, owed } = yield* teller.conclude({
    _tag: "Ended",
    outcome: result.outcome,
    usage: result.usage,
    output: result.output
  })
  const settlement: Settlement = { ...result, attempt: held.attempt, endedAtMs: event.atMs }
  const rows = yield* outbox.reserving(owed, persist("a settlement", journal.settle(held, settlement, owed)))
  yield* Effect.logInfo(`job ${describe(result.outcome)}`).pipe(
    Effect.annotateLogs({ outcome: result.outcome._tag, attempt: held.attempt })
  )
  yield* teller.settle(event, rows)
  yield* outbox.confirmed(rows)
})

/** Tried again instead of settled, if its sender asked for that: the attempt is used up, the outcome is nobody's yet. */
const putOff = Effect.fnUntraced(function*(delivery: Delivery, held: Claim, outcome: Outcome) {
  if (delivery.retry === undefined || !(yield* delivery.retry(outcome))) return false
  const journal = yield* Journal
  yield* persist("a retry", journal.postpone(held))
  yield* Effect.logInfo(`job ${describe(outcome)}, and is tried again`)
  return true
})

/**
 * A job that may take longer than its transport lets it be held: acked now, and the journal's from here on. Or rejected,
 * where the journal may not own it.
 */
const longHeld = Effect.fnUntraced(function*(delivery: Delivery, held: Claim, { program }: Assigned) {
  const { hold } = delivery
  const mayTakeMs = program.phases.reduce((sum, { limits }) => sum + limits.wallMs, 0)
  if (hold === undefined || mayTakeMs <= hold.limitMs) return undefined
  if (!hold.journalMayOwn) {
    return rejected(
      `its time limits add up to ${mayTakeMs} ms, and its broker lets a job be held for ${hold.limitMs} ms`,
      "Lower its wall limit, or let this worker's own journal keep such jobs (ownLongJobs)."
    )
  }
  const journal = yield* Journal
  if (yield* persist("taking over a long job", journal.own(held))) yield* delivery.ack
  return undefined
})

/** The job's life once there is room for it, up to the confirmed telling of its outcome. */
const live = Effect.fnUntraced(
  function*(delivery: Delivery, teller: Teller.Teller, stop: Deferred.Deferred<StopRequest>, receivedAt: bigint) {
    const { job } = delivery
    const journal = yield* Journal
    const desk = yield* Desk
    const asked = yield* monotonic
    const answer = yield* claim(delivery)
    const claimed = yield* monotonic
    switch (answer._tag) {
      case "Refused":
        yield* refuse(delivery, answer.reason)
        return "rejected" as const
      case "Settled":
        yield* retell(teller, answer.settlement)
        return "settled" as const
      case "Held":
        return "held" as const
      case "Exhausted":
        {
          const lost = Outcome.cases.Lost.make({ attempts: answer.attempts })
          teller.attempt(answer.claim.attempt)
          if (!(yield* putOff(delivery, answer.claim, lost))) yield* settle(answer.claim, teller, unrun(lost))
        }
        return "settled" as const
      case "Granted": {
        const held = answer.claim
        teller.attempt(held.attempt)
        yield* Effect.acquireRelease(
          Effect.sync(() => desk.claims.set(keyText(held.key), held)),
          () => Effect.sync(() => desk.claims.delete(keyText(held.key)))
        )
        const result = yield* Effect.gen(function*() {
          if (Deferred.isDoneUnsafe(stop)) {
            return unrun(Outcome.cases.Stopped.make({ reason: (yield* Deferred.await(stop)).reason }))
          }
          const assigned = yield* Effect.result(plan(job))
          if (assigned._tag === "Failure") return assigned.failure
          const refusal = yield* longHeld(delivery, held, assigned.success)
          if (refusal !== undefined) return refusal
          return yield* execute(job, held.attempt, assigned.success, stop, teller)
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
          // The worker is being drained: somebody else runs it, and this try does not count.
          Effect.onInterrupt(() => Effect.ignore(journal.release(held)))
        )
        if (yield* putOff(delivery, held, result.outcome)) return "settled" as const
        const usage: Usage = {
          ...result.usage,
          queuedMicros: micros(receivedAt, asked),
          claimMicros: micros(asked, claimed)
        }
        yield* settle(held, teller, { ...result, usage })
        return "settled" as const
      }
    }
  },
  Effect.scoped
)

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
    const receivedAt = yield* monotonic
    yield* Effect.forkScoped(Effect.ignore(listen(mailbox, deliveries, stop, lost)))
    const teller = yield* Teller.make(delivery, desk.watchers)

    const body = Effect.gen(function*() {
      yield* teller.tell({ _tag: "Received" })
      while (true) {
        const end = yield* admitted(desk.slots, stop, live(delivery, teller, stop, receivedAt))
        if (end !== "held") return end
        yield* Effect.sleep(HELD_PAUSE)
      }
    })
    const lostClaim: Effect.Effect<"lost", ClaimLost> = Effect.as(Deferred.await(lost), "lost")
    const end = yield* Effect.raceFirst(body, lostClaim).pipe(
      Effect.catchTag("ClaimLost", () => Effect.succeed("lost" as const)),
      Effect.onInterrupt(() => Effect.forEach(deliveries, ({ giveBack }) => giveBack, { discard: true }))
    )
    switch (end) {
      case "settled":
        return yield* Effect.forEach(deliveries, ({ ack }) => ack, { discard: true })
      case "rejected":
        return
      case "lost":
        yield* Effect.logWarning("the job's claim was lost to another worker; nothing was written")
        return yield* Effect.forEach(deliveries, ({ giveBack }) => giveBack, { discard: true })
    }
  }).pipe(Effect.annotateLogs({ job: keyText(keyOf(delivery.job)) }), Effect.scoped)

/** Waits for a slot and lives in it. A stop that comes before there is room does not wait for it. */
const admitted = <A, E, R>(
  slots: Semaphore.Semaphore,
  stop: Deferred.Deferred<StopRequest>,
  life: Effect.Effect<A, E, R>
) =>
  Effect.suspend(() => {
    let inside = false
    const waiting = Semaphore.withPermits(slots, 1)(Effect.suspend(() => {
      inside = true
      return Effect.map(life, (end) => ({ end }))
    }))
    const stopped = Effect.flatMap(Deferred.await(stop), () => inside ? Effect.never : Effect.undefined)
    return Effect.flatMap(Effect.raceFirst(waiting, stopped), (lived) =>
      lived === undefined ? life : Effect.succeed(lived.end))
  })
