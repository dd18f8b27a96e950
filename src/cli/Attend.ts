/** Attends one job of this process' worker: shows what happens, passes its output on, and hands over the user's stop. */
import { Deferred, Effect, Fiber, Stream } from "effect"
import { Worker } from "../actors/Worker.ts"
import { Control } from "../layers/control/Control.ts"
import type { ReadOptions } from "../layers/log/Log.ts"
import { type JobKey, keyText } from "../schemas/Ids.ts"
import { broughtBack, type JobEvent } from "../schemas/JobEvent.ts"
import { ExitWith } from "./CliFailure.ts"
import { signalCode } from "./ExitCode.ts"
import { follow } from "./Follow.ts"
import { OutputClosed } from "./Output.ts"
import type { Report } from "./Report.ts"
import type { Signals } from "./Signals.ts"
import type { View } from "./View.ts"

/** Between TERM and KILL when the user stops the job. */
const GRACE_MS = 2000

const SIGPIPE = 13

export interface Attended<E, R> {
  readonly key: JobKey
  readonly driver: string
  /** Hands the job in; the effect it gives fails when the job is turned away, and else never ends. */
  readonly enter: Effect.Effect<Effect.Effect<never, E>, E, R>
  readonly view: View
  readonly signals: Signals
}

/** The job's end, all of its output shown before. The first signal stops the job; the second is the caller's. */
export const attend = <E, R>({ driver, enter, key, signals, view }: Attended<E, R>) =>
  Effect.gen(function*() {
    const control = yield* Control
    const worker = yield* Worker
    const known = yield* Deferred.make<void>()
    const hasLog = yield* Deferred.make<void>()
    const ended = yield* Deferred.make<Extract<JobEvent, { _tag: "Ended" }>>()

    const hear = Effect.fnUntraced(function*(event: JobEvent) {
      yield* view.event(event)
      yield* Deferred.succeed(known, undefined)
      // The log is opened before there is a sandbox; a job that is refused has none.
      if (event._tag === "Running" || event._tag === "Ended") yield* Deferred.succeed(hasLog, undefined)
      if (event._tag === "Ended") yield* Deferred.succeed(ended, event)
    })
    // Subscribed before the job is handed in, so that nothing is missed.
    const listening = yield* control.events.pipe(
      Stream.filter((event) => keyText(event.key) === keyText(key)),
      Stream.runForEach(hear),
      Effect.andThen(Effect.never),
      Effect.forkScoped({ startImmediately: true })
    )
    const turnedAway = yield* enter

    const shown = Effect.gen(function*() {
      yield* Deferred.await(hasLog)
      // The one worker there is asks no others.
      const read = (options: ReadOptions) => Effect.catchTag(control.read(key, options), "WorkerAway", Effect.die)
      yield* follow(read, { ...view, stream: "all", wait: true }).pipe(
        Effect.catchTag("LogNotFound", () => Effect.void)
      )
      const { outcome, output, usage, ...rest } = yield* Deferred.await(ended)
      const report: Report = { id: key.id, driver, outcome, usage, output, ...broughtBack(rest) }
      yield* view.ended(report)
      return report
    })
    const stopped = Effect.gen(function*() {
      const signal = yield* signals.first
      yield* view.note(`stoker: ${signal}: stopping the job (KILL in ${GRACE_MS / 1000} s); once more ends it now`)
      yield* Deferred.await(known)
      yield* control.stop(key, { reason: `by the user (${signal})`, graceMs: GRACE_MS })
      return yield* Effect.never
    })
    // As if it had written to that pipe itself.
    const abandoned = control.stop(key, { reason: "nobody reads its output any more", graceMs: 0 }).pipe(
      Effect.ignore,
      Effect.andThen(Effect.fail(new ExitWith({ code: signalCode(SIGPIPE) })))
    )

    return yield* Effect.raceAllFirst([
      shown,
      Fiber.join(listening),
      stopped,
      worker.failure,
      turnedAway
    ]).pipe(
      Effect.catchIf((error): error is OutputClosed => error instanceof OutputClosed, () => abandoned)
    )
  }).pipe(Effect.scoped)
