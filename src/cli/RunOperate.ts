/** `stoker workers`, `drain` and `reload`: what an operator asks of the workers of a state directory. */
import { Effect, Option, Result } from "effect"
import { routes } from "../layers/control/AdminSocket.ts"
import { Reloaded, WorkerStatus } from "../schemas/Operation.ts"
import { layerHost } from "../wiring.ts"
import { CliFailure, ExitWith, exitWith } from "./CliFailure.ts"
import { exitCode } from "./ExitCode.ts"
import { chosenWorkers, type LiveWorker, liveWorkers, statusOf } from "./LiveWorkers.ts"
import * as Loggers from "./Loggers.ts"
import { print, say } from "./Output.ts"
import * as Signals from "./Signals.ts"
import { existingState } from "./StateDirectory.ts"
import { table } from "./Style.ts"
import { formatMicros } from "./Units.ts"

const logged = Loggers.layer({ format: "auto", usual: "Error" })

interface Common {
  readonly state: Option.Option<string>
}

interface Chosen extends Common {
  readonly instance: Option.Option<string>
}

const stateOf = ({ broker, draining, parts, pools }: WorkerStatus): string => {
  if (draining) return "draining"
  if (parts.some(({ state }) => state !== "running")) return "restarting a part"
  if (pools.length > 0 && pools.every(({ failing }) => failing !== undefined)) return "makes no sandbox"
  return broker?.connected === false ? "without broker" : "working"
}

const line = (instance: string, status: Result.Result<WorkerStatus, { readonly message: string }>) =>
  Result.match(status, {
    onFailure: ({ message }) => [instance, "", "", "", "", "", message],
    onSuccess: (told) => [
      instance,
      String(told.pid),
      told.version,
      formatMicros(told.uptimeMs * 1000),
      String(told.slots),
      String(told.inHand),
      stateOf(told)
    ]
  })

export const showWorkers = Effect.fn("RunOperate.showWorkers")(
  function*({ json, state }: Common & { readonly json: boolean }) {
    const directory = yield* existingState(state)
    const rows = yield* Effect.flatMap(
      liveWorkers,
      Effect.forEach((worker) =>
        Effect.map(Effect.result(statusOf(worker)), (status) => ({ instance: worker.instance, status }))
      )
    ).pipe(
      Effect.provide(layerHost(directory))
    )
    if (json) {
      return yield* print(
        JSON.stringify(rows.flatMap(({ status }) => Result.isSuccess(status) ? [status.success] : []))
      )
    }
    if (rows.length === 0) return yield* say("stoker: no worker is running with this state directory")
    const lines = rows.map(({ instance, status }) => line(instance, status))
    yield* print(table([["INSTANCE", "PID", "VERSION", "UP", "SLOTS", "JOBS", "STATE"], ...lines]))
  },
  Effect.provide(logged)
)

const jobs = (count: number) =>
  count === 0 ? "no job is in hand, ending" : `${count} job${count === 1 ? "" : "s"} in hand`

/** How often a draining worker is asked how far it is. */
const LOOK = "200 millis"

/** Waits for the end of one that drains; says how far it is whenever that changes. False if it died. */
const follow = Effect.fnUntraced(function*(worker: LiveWorker) {
  let said = ""
  while (yield* worker.isAlive) {
    const status = yield* Effect.result(statusOf(worker))
    const now = Result.isSuccess(status) ? jobs(status.success.inHand) : said
    if (now !== said) yield* say(`stoker: ${worker.instance}: ${now}`)
    said = now
    yield* Effect.sleep(LOOK)
  }
  const died = yield* worker.leftSocket
  yield* say(
    `stoker: ${worker.instance}: ${died ? "died before it had ended; another worker clears up after it" : "ended"}`
  )
  return !died
})

export const drainWorkers = Effect.fn("RunOperate.drainWorkers")(
  function*({ instance, state, timeout, wait }: Chosen & {
    /** Milliseconds. */
    readonly timeout: Option.Option<number>
    readonly wait: boolean
  }) {
    const directory = yield* existingState(state)
    const ended = yield* Effect.gen(function*() {
      const workers = yield* chosenWorkers(instance)
      const asked = yield* Effect.forEach(
        workers,
        (worker) =>
          Effect.result(worker.ask(routes.drain, WorkerStatus)).pipe(
            Effect.tap((answer) =>
              say(
                `stoker: ${worker.instance}: ${
                  Result.isSuccess(answer) ? `draining, ${jobs(answer.success.inHand)}` : answer.failure.message
                }`
              )
            )
          )
      )
      if (!wait && Option.isNone(timeout)) return asked.every(Result.isSuccess)
      const all = Effect.forEach(workers, follow, { concurrency: "unbounded" })
      const within = Option.isNone(timeout) ? all : Effect.timeoutOrElse(all, {
        duration: timeout.value,
        orElse: () =>
          Effect.fail(
            new CliFailure({
              reason: `not all workers had ended after ${formatMicros(timeout.value * 1000)}`,
              remedy: "They go on draining. `stoker workers` shows them; SIGTERM to one ends its jobs at once.",
              code: exitCode.usage
            })
          )
      })
      return (yield* within).every(Boolean)
    }).pipe(Effect.provide(layerHost(directory)), Signals.interruptible)
    yield* exitWith(ended ? 0 : exitCode.usage)
  },
  Effect.provide(logged)
)

/** A configuration is read, and sandboxes are not touched: this is ample. */
const RELOAD_LIMIT_MS = 30_000

export const reloadWorkers = Effect.fn("RunOperate.reloadWorkers")(
  function*({ instance, state }: Chosen) {
    const directory = yield* existingState(state)
    const done = yield* Effect.gen(function*() {
      return yield* Effect.forEach(
        yield* chosenWorkers(instance),
        (worker) =>
          worker.ask(routes.reload, Reloaded, { limitMs: RELOAD_LIMIT_MS }).pipe(
            Effect.flatMap(({ changes }) =>
              print([
                `${worker.instance}: ${changes.length === 0 ? "nothing has changed" : "read again"}`,
                ...changes.map(({ applied, field }) => `  ${field}: ${applied ? "applied" : "needs a restart"}`)
              ].join("\n"))
            ),
            Effect.as(true),
            Effect.catchTags({
              WorkerRefused: ({ message }) => Effect.as(say(`stoker: ${worker.instance}: ${message}`), false),
              WorkerSilent: ({ message }) => Effect.as(say(`stoker: ${worker.instance}: ${message}`), false)
            })
          )
      )
    }).pipe(Effect.provide(layerHost(directory)), Signals.interruptible)
    if (!done.every(Boolean)) return yield* new ExitWith({ code: exitCode.usage })
  },
  Effect.provide(logged)
)
