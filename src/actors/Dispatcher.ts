/**
 * Turns deliveries into job actors: one for each key, so that a repeat joins the run it repeats. Bounded: an intake
 * waits while as many of its jobs are in hand as may run and wait. Each has room of its own: none fills another's.
 */
import { Context, Deferred, Effect, Exit, Layer, Scope, Semaphore } from "effect"
import type { Artefacts } from "../layers/artefacts/Artefacts.ts"
import { Settings } from "../layers/config/Settings.ts"
import type { Emitters } from "../layers/emitter/Emitter.ts"
import type { Executor, StopRequest } from "../layers/executor/Executor.ts"
import type { Functions } from "../layers/functions/Functions.ts"
import type { Host } from "../layers/host/Host.ts"
import type { Delivery } from "../layers/intake/Intake.ts"
import type { Claim, Journal } from "../layers/journal/Journal.ts"
import type { Ledger } from "../layers/ledger/Ledger.ts"
import type { Log } from "../layers/log/Log.ts"
import { type IntakeName, type JobKey, keyText } from "../schemas/Ids.ts"
import { keyOf } from "../schemas/Job.ts"
import * as Actor from "./Actor.ts"
import type { Desk } from "./Desk.ts"
import * as Job from "./Job.ts"
import type { Outbox } from "./Outbox.ts"

interface InHand {
  readonly ref: Actor.ActorRef<Job.JobMessage>
  readonly hash: string
  /** Which try of the sender's it carries out. */
  readonly attempt: number
}

export class Dispatcher extends Context.Service<Dispatcher, {
  /** Takes the job in hand; waits while there is no room. */
  readonly deliver: (delivery: Delivery) => Effect.Effect<void>
  /** Stops a job that is in hand here and waits for its end; false if it is not here. */
  readonly stop: (key: JobKey, request: StopRequest) => Effect.Effect<boolean>
  /** The claim is another's now. */
  readonly claimLost: (claim: Claim) => Effect.Effect<void>
  readonly inHand: Effect.Effect<number>
  /** Waits until nothing is in hand. */
  readonly idle: Effect.Effect<void>
  /** Ends what is in hand: unfinished jobs are given back. */
  readonly abort: Effect.Effect<void>
}>()("stoker/actors/Dispatcher") {}

const make = Effect.gen(function*() {
  const { slots, waiting } = yield* Settings
  // What a job actor uses, taken once.
  const services = yield* Effect.context<
    Artefacts | Desk | Emitters | Executor | Functions | Host | Journal | Ledger | Log | Outbox | Settings
  >()
  const jobs = new Map<string, InHand>()
  const rooms = new Map<string, Semaphore.Semaphore>()
  const roomOf = (door: IntakeName) => {
    const room = rooms.get(door) ?? Semaphore.makeUnsafe(slots + waiting)
    rooms.set(door, room)
    return room
  }
  let inHand = 0
  let idlers: ReadonlyArray<Deferred.Deferred<void>> = []
  const left = Effect.sync(() => {
    inHand -= 1
    if (inHand > 0) return
    const called = idlers
    // Before they are called: one of them may come back at once.
    idlers = []
    for (const idler of called) Deferred.doneUnsafe(idler, Effect.void)
  })
  const scope = yield* Scope.fork(yield* Effect.scope)

  /** A job's actor, which leaves the table and its place when it ends, however it ends. */
  const begin = Effect.fnUntraced(function*(key: string, delivery: Delivery, room: Semaphore.Semaphore) {
    inHand += 1
    const own = yield* Scope.fork(scope)
    const ref = yield* Actor.start<Job.JobMessage, never, never>(
      { name: `job ${key}`, capacity: 8, restart: Actor.noRestart, unhandled: Job.unheard },
      (mailbox) => Effect.provideContext(Job.run(delivery)(mailbox), services)
    ).pipe(Scope.provide(own))
    jobs.set(key, { ref, hash: delivery.hash, attempt: delivery.attempt ?? 1 })
    yield* ref.ended.pipe(
      // A defect in the actor itself: the job is not settled, so it goes back where it came from.
      Effect.catch(() => Effect.andThen(Effect.sleep("1 second"), delivery.giveBack)),
      Effect.ensuring(Effect.sync(() => jobs.get(key)?.ref === ref && jobs.delete(key))),
      Effect.andThen(Scope.close(own, Exit.void)),
      Effect.ensuring(left),
      Effect.ensuring(Semaphore.release(room, 1)),
      Effect.forkIn(scope)
    )
  })

  const deliver = (delivery: Delivery) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.gen(function*() {
        const key = keyText(keyOf(delivery.job))
        const known = jobs.get(key)
        // The copy for the next try may be back before this one has been put off: it must not be acked with it.
        if (known !== undefined && known.hash === delivery.hash && known.attempt >= (delivery.attempt ?? 1)) {
          const attached = yield* Effect.result(known.ref.tell({ _tag: "Attach", delivery }))
          if (attached._tag === "Success") return
        }
        const room = roomOf(delivery.job.intake)
        yield* Effect.onInterrupt(restore(Semaphore.take(room, 1)), () => delivery.giveBack)
        // A conflicting request gets an actor too, beside the one it conflicts with: the journal refuses it.
        yield* begin(jobs.has(key) ? `${key} (again)` : key, delivery, room)
      })
    )

  return Dispatcher.of({
    deliver,
    stop: Effect.fnUntraced(function*(key, request) {
      const job = jobs.get(keyText(key))
      if (job === undefined) return false
      yield* Effect.ignore(job.ref.tell({ _tag: "Stop", request }))
      yield* Effect.ignore(job.ref.ended)
      return true
    }),
    claimLost: (claim) =>
      Effect.suspend(() => {
        const job = jobs.get(keyText(claim.key))
        return job === undefined ? Effect.void : Effect.ignore(job.ref.tell({ _tag: "ClaimLost" }))
      }),
    inHand: Effect.sync(() => inHand),
    idle: Effect.suspend(() => {
      if (inHand === 0) return Effect.void
      const idler = Deferred.makeUnsafe<void>()
      idlers = [...idlers, idler]
      return Deferred.await(idler)
    }),
    abort: Scope.close(scope, Exit.void)
  })
})

export const layer = Layer.effect(Dispatcher, make)
