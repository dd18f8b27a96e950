/** The worker's answer to its operator. */
import { Clock, Deferred, Effect, Layer, Semaphore } from "effect"
import type { AmqpStatus } from "../layers/amqp/Amqp.ts"
import { ConfigSource } from "../layers/config/ConfigSource.ts"
import { Settings } from "../layers/config/Settings.ts"
import { Control } from "../layers/control/Control.ts"
import { Operator, ReloadRefused } from "../layers/control/Operator.ts"
import { DiskSpace } from "../layers/host/DiskSpace.ts"
import { Host } from "../layers/host/Host.ts"
import { Journal } from "../layers/journal/Journal.ts"
import { monotonicNanos } from "../layers/Now.ts"
import type { JobNow, WorkerStatus } from "../schemas/Operation.ts"
import { Desk, type Underway } from "./Desk.ts"
import { Dispatcher } from "./Dispatcher.ts"
import { Pools } from "./Pools.ts"
import * as Readiness from "./Readiness.ts"
import { adjustables, changedFields, isOneOf, textsOf } from "./Reconfigure.ts"
import { Sampler } from "./Sampler.ts"
import { Worker } from "./Worker.ts"

export interface OperatorOptions {
  readonly version: string
  /** Undefined: no broker is configured. */
  readonly broker: Effect.Effect<AmqpStatus | undefined>
}

const brokerOf = ({ blocked, connected, lastError, queues }: AmqpStatus): NonNullable<WorkerStatus["broker"]> => ({
  connected,
  queues,
  ...(blocked === undefined ? {} : { blocked }),
  ...(lastError === undefined ? {} : { lastError: lastError.message })
})

const jobNow = ({ observe, phase, place, sinceNanos, ...job }: Underway, nowNanos: bigint) =>
  Effect.map(observe, (now): JobNow => ({
    ...job,
    ...(phase === undefined ? {} : { phase }),
    runningMs: Number((nowNanos - sinceNanos) / 1_000_000n),
    place,
    now
  }))

const make = Effect.fnUntraced(function*(options: OperatorOptions) {
  const { instance } = yield* Host
  const settings = yield* Settings
  const control = yield* Control
  const dispatcher = yield* Dispatcher
  const journal = yield* Journal
  const pools = yield* Pools
  const disk = yield* DiskSpace
  const source = yield* ConfigSource
  const worker = yield* Worker
  const sampler = yield* Sampler
  const scope = yield* Effect.scope
  const startedAt = yield* Clock.currentTimeMillis
  const drained = yield* Deferred.make<void>()
  const turn = yield* Semaphore.make(1)
  const desk = yield* Desk
  const adjustable = adjustables(worker, desk.admission)
  let draining = false
  /** What the worker runs with. */
  const running = new Map(textsOf(source.initial))
  let { slots } = settings

  const status = Effect.gen(function*() {
    const broker = yield* options.broker
    const { classes } = yield* pools.stats
    const told: WorkerStatus = {
      version: options.version,
      instance,
      pid: process.pid,
      uptimeMs: (yield* Clock.currentTimeMillis) - startedAt,
      draining,
      ...(source.name === undefined ? {} : { file: source.name }),
      slots,
      inHand: yield* dispatcher.inHand,
      parts: yield* worker.parts,
      pools: classes.map(({ failing, idle, making, target, used, waiting, ...stats }) => ({
        class: stats.class,
        idle,
        used,
        making,
        waiting,
        target,
        ...(failing === undefined ? {} : { failing: `${failing.reason}. ${failing.remedy}` })
      })),
      ...(broker === undefined ? {} : { broker: brokerOf(broker) })
    }
    return told
  })

  const ready = Effect.gen(function*() {
    const parts = yield* worker.parts
    return Readiness.healthOf([
      ...(draining ? [Readiness.drainingReason] : Readiness.closedDoors(parts)),
      ...Readiness.partsGivenUp(parts),
      ...(yield* Readiness.journalReasons(journal)),
      ...Readiness.brokerReasons(yield* options.broker),
      ...(yield* Readiness.diskReasons(disk, settings.diskReserveBytes)),
      ...Readiness.poolReasons(yield* pools.stats)
    ])
  })

  const reload = Effect.gen(function*() {
    const next = yield* source.read.pipe(Effect.mapError(({ reason, remedy }) => new ReloadRefused({ reason, remedy })))
    const texts = textsOf(next)
    const changed = changedFields(running, texts)
    const due = adjustable.filter(({ fields }) => changed.some((field) => isOneOf(fields, field)))
    yield* Effect.forEach(due, ({ apply }) => apply(next.config), { discard: true })
    const applied = [...due.flatMap(({ fields }) => fields), ...(yield* source.apply(next))]
    const changes = changed.map((field) => ({ field, applied: isOneOf(applied, field) }))
    for (const { field } of changes.filter((change) => change.applied)) {
      const text = texts.get(field)
      if (text === undefined) running.delete(field)
      else running.set(field, text)
    }
    if (isOneOf(applied, "slots")) slots = next.config.slots
    return { file: source.name ?? "", changes }
  }).pipe(turn.withPermit)

  return Operator.of({
    live: Effect.map(worker.parts, (parts) => Readiness.healthOf(Readiness.partsGivenUp(parts))),
    ready,
    status,
    jobs: Effect.gen(function*() {
      const now = yield* monotonicNanos
      return { jobs: yield* Effect.forEach([...desk.underway], (underway) => jobNow(underway, now)) }
    }),
    metrics: Effect.gen(function*() {
      yield* sampler.sample
      const { format } = yield* Effect.promise(() => import("effect/observability/PrometheusMetrics"))
      return yield* format()
    }),
    drain: Effect.suspend(() => {
      if (draining) return Effect.void
      draining = true
      return worker.drain.pipe(Effect.ensuring(Deferred.succeed(drained, undefined)), Effect.forkIn(scope))
    }),
    drained: Deferred.await(drained),
    reload,
    stop: control.stop
  })
})

export const layer = (options: OperatorOptions) => Layer.effect(Operator, make(options))
