/** `stoker worker`: a worker that lives until it is told to stop, or cannot go on. */
import { Deferred, Effect, Layer, Option, Redacted } from "effect"
import manifest from "../../package.json" with { type: "json" }
import { Worker } from "../actors/Worker.ts"
import { ConfigSource, type ReadConfig } from "../layers/config/ConfigSource.ts"
import { Operator } from "../layers/control/Operator.ts"
import { Host } from "../layers/host/Host.ts"
import * as OtlpOptions from "../layers/telemetry/OtlpOptions.ts"
import {
  type ApiWiring,
  journalOptions,
  layerApi,
  layerMstcRest,
  layerOperator,
  layerPostgres,
  layerWorker,
  noDoors,
  webhookDoors
} from "../wiring.ts"
import { ExitWith, usageFailure } from "./CliFailure.ts"
import { exitCode } from "./ExitCode.ts"
import * as Loggers from "./Loggers.ts"
import { say } from "./Output.ts"
import * as Signals from "./Signals.ts"
import { noIsolation } from "./WorkerConfigs.ts"
import { type SetupFlags, type WorkerSetup, workerSetup } from "./WorkerSetup.ts"

/** The broker's doors, and what is said of them. */
const QUEUES = {
  "jobs_q": "jobs_q (jobs_ex/jobs_rk)",
  "jobs": "jobs",
  "stoker.jobs.high": "stoker.jobs.high",
  "stoker.jobs": "stoker.jobs",
  "stoker.jobs.low": "stoker.jobs.low"
}

const readConfigOf = (
  { amqp, api, config, functions, http, journal, log, objectStore, stateDirectory }: WorkerSetup
): ReadConfig => ({
  config,
  others: {
    stateDirectory,
    amqp: Option.match(amqp, { onNone: () => "", onSome: Redacted.value }),
    journal: Option.match(journal, { onNone: () => "", onSome: Redacted.value }),
    functions: functions.join(", "),
    "objectStore.keys": Option.match(objectStore, {
      onNone: () => "",
      onSome: ({ accessKey, secretKey }) => JSON.stringify([Redacted.value(accessKey), Redacted.value(secretKey)])
    }),
    "http.listen": Option.getOrElse(http, () => ""),
    api: Option.match(api, {
      onNone: () => "",
      onSome: ({ webhooks, ...rest }) =>
        JSON.stringify([rest, webhooks === undefined ? "" : [webhooks.allow, Redacted.value(webhooks.secret)]])
    }),
    "log.format": log.format,
    "log.level": log.level
  }
})

/** The file and the flags, which are read again together. */
const layerSource = (flags: SetupFlags, setup: WorkerSetup, levels: Loggers.LogLevels) =>
  Layer.sync(ConfigSource, () => {
    let level = setup.log.level
    return ConfigSource.of({
      name: Option.getOrUndefined(setup.file),
      initial: readConfigOf(setup),
      read: Effect.gen(function*() {
        if (Option.isNone(setup.file)) {
          return yield* usageFailure(
            "this worker was started without a configuration file",
            "Start it with --config FILE; its flags stay as they are until then."
          )
        }
        const next = yield* workerSetup(flags)
        level = next.log.level
        return readConfigOf(next)
      }),
      apply: () => Effect.as(levels.set(level), ["log.level"])
    })
  })

/** Reads the configuration again at each SIGHUP, and says what came of it. */
const reloadAt = Effect.fnUntraced(function*(hangup: Effect.Effect<void>) {
  const operator = yield* Operator
  const reload = operator.reload.pipe(
    Effect.flatMap(({ changes }) =>
      changes.length === 0
        ? Effect.logInfo("the configuration was read again: nothing has changed")
        : Effect.forEach(changes, ({ applied, field }) =>
          applied
            ? Effect.logInfo(`${field} was changed`)
            : Effect.logWarning(`${field} has changed, and needs a restart of the worker`), { discard: true })
    ),
    Effect.catch((refused) => Effect.logError(refused.message))
  )
  yield* Effect.forkScoped(Effect.forever(Effect.andThen(hangup, reload)))
})

const serve = Effect.fnUntraced(function*(
  { amqp, config }: WorkerSetup,
  signals: Signals.Signals,
  hangup: Effect.Effect<void>,
  connected: Deferred.Deferred<void>
) {
  const { instance, paths } = yield* Host
  const worker = yield* Worker
  const operator = yield* Operator
  const ready = Effect.logInfo("consuming").pipe(
    Effect.annotateLogs({
      queues: ["embedded", ...(Option.isSome(amqp) ? Object.values(QUEUES) : [])].join(", "),
      state: paths.state,
      slots: config.slots,
      classes: config.classes.map(({ name }) => name).join(", "),
      instance
    })
  )
  yield* Effect.forkScoped(Effect.andThen(Deferred.await(connected), ready))
  yield* reloadAt(hangup)
  const drainAtSignal = Effect.gen(function*() {
    const signal = yield* signals.first
    yield* Effect.logInfo(`${signal}: a second one ends running jobs at once`)
    yield* operator.drain
    return yield* Effect.never
  })
  yield* Effect.raceAllFirst([drainAtSignal, operator.drained, worker.failure])
}, Effect.scoped)

const life = Effect.fnUntraced(function*(
  flags: SetupFlags,
  setup: WorkerSetup,
  levels: Loggers.LogLevels,
  signals: Signals.Signals
) {
  const { amqp, api, config, functions, http, journal, objectStore, stateDirectory } = setup
  if (config.classes.some(({ driver }) => driver === "process")) yield* Effect.logWarning(noIsolation)

  const telemetry = yield* OtlpOptions.read
  // Taken before anything starts, or it would end the process. Without a file it does, as a closed terminal means it to.
  const hangup = Option.isSome(setup.file) ? yield* Signals.hangups : Effect.never
  const connected = yield* Deferred.make<void>()
  if (Option.isNone(amqp)) yield* Deferred.succeed(connected, undefined)
  const { webhooks } = Option.getOrElse(api, (): Partial<ApiWiring> => ({}))
  const worker = layerWorker({
    stateDirectory,
    config,
    functionFiles: functions,
    embedded: true,
    direct: "direct",
    doors: webhooks === undefined ? noDoors : webhookDoors(webhooks),
    ...(telemetry === undefined ? {} : { telemetry }),
    ...(Option.isNone(objectStore) ? {} : { objectStore: objectStore.value }),
    ...(Option.isNone(journal) ? {} : {
      journal: layerPostgres(
        { postgres: journal.value, connections: Math.min(config.slots + 2, 10) },
        journalOptions(config)
      )
    }),
    ...(Option.isNone(amqp) ? {} : {
      amqp: {
        url: amqp.value,
        onStatus: ({ connected: up, queues }) =>
          up && Object.keys(QUEUES).every((queue) => queues.includes(queue))
            ? Effect.asVoid(Deferred.succeed(connected, undefined))
            : Effect.void
      }
    })
  })
  const doors = Option.match(api, {
    onNone: () => Layer.empty,
    onSome: (wiring) => layerApi(wiring, Option.getOrUndefined(Option.map(amqp, (url) => ({ url }))))
  })
  const operator = layerOperator({ version: manifest.version, http }).pipe(
    Layer.provide(layerSource(flags, setup, levels))
  )
  const { mstc } = config
  const mstcRest = mstc?.listen === undefined
    ? Layer.empty
    : layerMstcRest({ class: mstc.class, listen: mstc.listen })
  const whole = Layer.merge(doors, mstcRest).pipe(Layer.provideMerge(operator), Layer.provideMerge(worker))
  yield* Effect.gen(function*() {
    // Told to stop while it starts: there is nothing to drain, what is made so far is removed.
    const early = Effect.as(signals.first, Option.none())
    const built = yield* Effect.raceFirst(Effect.asSome(Layer.build(whole)), early)
    if (Option.isSome(built)) yield* serve(setup, signals, hangup, connected).pipe(Effect.provideContext(built.value))
    else yield* Effect.logInfo("told to stop before it was ready")
  }).pipe(Effect.scoped)
  yield* Effect.logInfo("ended")
}, Effect.scoped)

/** Ends well after a drain, with 1 after a second signal or when the worker could not go on. */
export const runWorker = Effect.fn("RunWorker.runWorker")(function*(flags: SetupFlags) {
  yield* Effect.gen(function*() {
    const signals = yield* Signals.take
    const setup = yield* workerSetup(flags)
    const { layer, levels } = Loggers.adjustable({ ...setup.log, isFixed: Option.isNone(setup.file) })
    const forced = signals.second.pipe(
      Effect.andThen(say("stoker: ending at once: running jobs are killed and given back")),
      Effect.andThen(Effect.fail(new ExitWith({ code: exitCode.usage })))
    )
    yield* Effect.raceFirst(life(flags, setup, levels, signals), forced).pipe(Effect.provide(layer))
  }).pipe(Effect.scoped)
})
