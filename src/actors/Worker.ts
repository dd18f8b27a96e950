/**
 * The supervisor: sweeps what dead workers left, opens the doors, keeps claims alive, and drains. A door or a loop that
 * fails starts again with backoff; one that cannot stay up ends the worker with a clear cause.
 */
import { Context, Deferred, Effect, Fiber, Layer, Scope, Stream } from "effect"
import { Settings } from "../layers/config/Settings.ts"
import type { HostError } from "../layers/host/Host.ts"
import { Launcher } from "../layers/host/Launcher.ts"
import { Watchdog } from "../layers/host/Watchdog.ts"
import { type Delivery, Intakes } from "../layers/intake/Intake.ts"
import * as Actor from "./Actor.ts"
import * as Cron from "./Cron.ts"
import { DiskWatch } from "./DiskWatch.ts"
import { Dispatcher } from "./Dispatcher.ts"
import * as Janitor from "./Janitor.ts"
import * as Keeper from "./Keeper.ts"
import * as Lapses from "./Lapses.ts"
import { Outbox } from "./Outbox.ts"
import { Pools } from "./Pools.ts"

/** What cannot restart ends the worker. */
export type WorkerFailed = Actor.ActorFailed | HostError

/** A door or a loop of the worker, and how it is. */
export interface Part {
  readonly name: string
  readonly state: "running" | "restarting" | "givenUp" | "closed"
}

/** The running worker: how it ends, by itself or when it is asked to. */
export class Worker extends Context.Service<Worker, {
  /** Waits for the end nobody wants: fails when something was given up. */
  readonly failure: Effect.Effect<never, WorkerFailed>
  /** Closes the doors, lets running jobs end within the configured time, gives the rest back. */
  readonly drain: Effect.Effect<void>
  /** What it is made of, in the order in which it started. */
  readonly parts: Effect.Effect<ReadonlyArray<Part>>
  /** Other than it was started with, for the next drain. */
  readonly configure: (options: { readonly drainMs: number }) => Effect.Effect<void>
}>()("stoker/actors/Worker") {}

/** The pauses double: what fails each time has failed eleven times after about two and a half minutes. */
const intensity: Actor.RestartIntensity = { times: 10, within: "5 minutes", backoff: "200 millis" }

const make = Effect.gen(function*() {
  const { cron = [], ...settings } = yield* Settings
  let { drainMs } = settings
  const dispatcher = yield* Dispatcher
  const disk = yield* DiskWatch
  const outbox = yield* Outbox
  const pools = yield* Pools
  const failed = yield* Deferred.make<never, WorkerFailed>()
  const scope = yield* Effect.scope

  const parts = new Map<string, Part["state"]>()
  const supervise = <E, R>(name: string, body: Effect.Effect<void, E, R>) => {
    const become = (state: Part["state"]) => Effect.sync(() => void parts.set(name, state))
    const observed = Effect.andThen(become("running"), Effect.onExit(body, () => become("restarting")))
    return Actor.restarting(name, intensity, observed).pipe(
      Effect.annotateLogs({ actor: name }),
      Effect.catch((error) => Effect.andThen(become("givenUp"), Deferred.fail(failed, error))),
      Effect.onInterrupt(() => become("closed")),
      Effect.forkIn(scope)
    )
  }

  yield* Effect.ignore(Janitor.sweep, { log: "Warn", message: "the first janitor's round failed" })
  yield* supervise("janitor", Janitor.rounds)
  yield* supervise("keeper", Keeper.rounds)
  yield* supervise("lapses", Lapses.rounds)
  yield* supervise("disk watch", disk.rounds)
  if (cron.length > 0) yield* supervise("cron", Cron.rounds(cron))
  yield* (yield* Launcher).died.pipe(Effect.catch((error) => Deferred.fail(failed, error)), Effect.forkIn(scope))
  yield* (yield* Watchdog).died.pipe(Effect.catch((error) => Deferred.fail(failed, error)), Effect.forkIn(scope))
  yield* pools.failure.pipe(Effect.catch((error) => Deferred.fail(failed, error)), Effect.forkIn(scope))
  yield* Effect.ignore(outbox.sweep, { log: "Warn", message: "an earlier worker's messages could not be read" })

  /** One waits here while the disk is nearly full, and with it all that is behind it at its door. */
  const take = (delivery: Delivery) =>
    Effect.andThen(Effect.onInterrupt(disk.room, () => delivery.giveBack), dispatcher.deliver(delivery))
  const doors = yield* Effect.forEach(
    yield* Intakes,
    (intake) => supervise(`intake ${intake.name}`, Stream.runForEach(intake.deliveries, take))
  )

  const drain = Effect.gen(function*() {
    yield* Effect.logInfo("draining: no more jobs are taken")
    yield* Fiber.interruptAll(doors)
    const limitMs = drainMs
    const ended = yield* Effect.timeoutOption(dispatcher.idle, limitMs)
    if (ended._tag === "None") {
      yield* Effect.logWarning(`${yield* dispatcher.inHand} jobs did not end within ${limitMs} ms and are given back`)
    }
    yield* dispatcher.abort
    yield* pools.drain
  })
  // Whoever closes the worker without draining gives back what is in hand.
  yield* Scope.addFinalizer(scope, dispatcher.abort)
  return Worker.of({
    failure: Deferred.await(failed),
    drain,
    parts: Effect.sync(() => [...parts].map(([name, state]) => ({ name, state }))),
    configure: (options) => Effect.sync(() => void (drainMs = options.drainMs))
  })
})

export const layer = Layer.effect(Worker, make)
