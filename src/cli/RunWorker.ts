/** `stoker worker`: a worker that lives until it is told to stop, or cannot go on. */
import { Deferred, Effect, Option, type Redacted } from "effect"
import { Worker } from "../actors/Worker.ts"
import { Host } from "../layers/host/Host.ts"
import * as OtlpOptions from "../layers/telemetry/OtlpOptions.ts"
import type { WorkerConfig } from "../schemas/WorkerConfig.ts"
import { journalOptions, layerPostgres, layerWorker } from "../wiring.ts"
import { ExitWith } from "./CliFailure.ts"
import { exitCode } from "./ExitCode.ts"
import * as Loggers from "./Loggers.ts"
import { say } from "./Output.ts"
import * as Signals from "./Signals.ts"
import { stateDirectory } from "./StateDirectory.ts"
import { configForWorker, type DriverChoice, noIsolation } from "./WorkerConfigs.ts"

export interface WorkerOptions {
  readonly amqp: Option.Option<Redacted.Redacted<string>>
  readonly state: Option.Option<string>
  readonly journal: Option.Option<Redacted.Redacted<string>>
  readonly slots: Option.Option<number>
  readonly warm: Option.Option<number>
  readonly ownLongJobs: boolean
  /** Milliseconds. */
  readonly drain: Option.Option<number>
  readonly driver: ReadonlyArray<DriverChoice>
  readonly class: Option.Option<string>
  readonly logFormat: Loggers.LogFormat
}

/** The broker's doors, and what is said of them. */
const QUEUES = {
  "jobs_q": "jobs_q (jobs_ex/jobs_rk)",
  "jobs": "jobs",
  "stoker.jobs.high": "stoker.jobs.high",
  "stoker.jobs": "stoker.jobs",
  "stoker.jobs.low": "stoker.jobs.low"
}

const life = Effect.fnUntraced(function*(options: WorkerOptions, signals: Signals.Signals) {
  const directory = yield* stateDirectory(options.state)
  const [first = "oci", ...others] = options.driver
  const usual = yield* configForWorker({
    drivers: [first, ...others],
    defaultClass: options.class,
    slots: options.slots,
    warm: options.warm
  })
  const config: WorkerConfig = {
    ...usual,
    ownLongJobs: options.ownLongJobs,
    ...(Option.isSome(options.drain) ? { drainMs: options.drain.value } : {})
  }
  if (config.classes.some(({ driver }) => driver === "process")) yield* Effect.logWarning(noIsolation)

  const telemetry = yield* OtlpOptions.read
  const connected = yield* Deferred.make<void>()
  const serve = Effect.gen(function*() {
    const { instance, paths } = yield* Host
    const worker = yield* Worker
    const ready = Effect.logInfo("consuming").pipe(
      Effect.annotateLogs({
        queues: ["embedded", ...(Option.isSome(options.amqp) ? Object.values(QUEUES) : [])].join(", "),
        state: paths.state,
        slots: config.slots,
        classes: config.classes.map(({ name }) => name).join(", "),
        instance
      })
    )
    yield* Effect.forkScoped(Effect.andThen(Deferred.await(connected), ready))
    const signal = yield* Effect.raceFirst(signals.first, worker.failure)
    yield* Effect.logInfo(`${signal}: a second one ends running jobs at once`)
    yield* worker.drain
  }).pipe(Effect.scoped)

  if (Option.isNone(options.amqp)) yield* Deferred.succeed(connected, undefined)
  yield* serve.pipe(
    Effect.provide(layerWorker({
      stateDirectory: directory,
      config,
      embedded: true,
      direct: "direct",
      ...(telemetry === undefined ? {} : { telemetry }),
      ...(Option.isNone(options.journal)
        ? {}
        : {
          journal: layerPostgres(
            { postgres: options.journal.value, connections: Math.min(config.slots + 2, 10) },
            journalOptions(config)
          )
        }),
      ...(Option.isNone(options.amqp) ? {} : {
        amqp: {
          url: options.amqp.value,
          onStatus: ({ connected: up, queues }) =>
            up && Object.keys(QUEUES).every((queue) => queues.includes(queue))
              ? Effect.asVoid(Deferred.succeed(connected, undefined))
              : Effect.void
        }
      })
    }))
  )
  yield* Effect.logInfo("ended")
})

/** Ends well after a drain, with 1 after a second signal or when the worker could not go on. */
export const runWorker = Effect.fn("RunWorker.runWorker")(function*(options: WorkerOptions) {
  yield* Effect.gen(function*() {
    const signals = yield* Signals.take
    const forced = signals.second.pipe(
      Effect.andThen(say("stoker: ending at once: running jobs are killed and given back")),
      Effect.andThen(Effect.fail(new ExitWith({ code: exitCode.usage })))
    )
    yield* Effect.raceFirst(life(options, signals), forced)
  }).pipe(Effect.scoped, Effect.provide(Loggers.layer({ format: options.logFormat, usual: "Info" })))
})
