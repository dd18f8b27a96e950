/**
 * Reads what is state (pools, process, disk, what the journal owes) into gauges, now and then. What happens is counted
 * where it happens; this is for what just is.
 */
import { Context, Effect, Layer, Schedule } from "effect"
import { Settings } from "../layers/config/Settings.ts"
import { Functions } from "../layers/functions/Functions.ts"
import { Host } from "../layers/host/Host.ts"
import { Intakes } from "../layers/intake/Intake.ts"
import { Journal } from "../layers/journal/Journal.ts"
import * as EventLoop from "../layers/telemetry/EventLoop.ts"
import type { Counter, Gauge, Labels } from "../layers/telemetry/Instrument.ts"
import { begin, count, metrics } from "../layers/telemetry/Metrics.ts"
import * as OwnProcess from "../layers/telemetry/OwnProcess.ts"
import type { Outcome } from "../schemas/Outcome.ts"
import * as Actor from "./Actor.ts"
import { Pools, type PoolsStats } from "./Pools.ts"
import type { PoolStats } from "./PoolStats.ts"

export class Sampler extends Context.Service<Sampler, {
  /** Brings pools and process up to date now: for whoever is about to read the metrics. */
  readonly sample: Effect.Effect<void>
}>()("stoker/actors/Sampler") {}

/** Pools and process: some tens of microseconds. */
const OFTEN = "2 seconds"
/** The event loop's window, the journal's counts, the disk. */
const SELDOM = "15 seconds"
/** A journal that does not answer holds nothing else up. */
const JOURNAL_LIMIT = "5 seconds"

/** Never gives up: without its gauges a worker works as well. */
const intensity: Actor.RestartIntensity = { times: Number.POSITIVE_INFINITY, within: "1 minute", backoff: "1 second" }

/** Totals somebody else keeps, as counters: what was added since the last time. */
const makeTotals = (context: Context.Context<never>) => {
  const seen = new Map<string, number>()
  return <L extends string>(counter: Counter<L>, labels: Labels<L>, total: number) => {
    const key = `${counter.name} ${Object.values(labels).join(" ")}`
    count(context, counter, labels, Math.max(0, total - (seen.get(key) ?? 0)))
    seen.set(key, total)
  }
}

/** Stoker's own doing. An alert must have seen their series before the first rise, so they begin at 0. */
const OWN_FAULTS: ReadonlyArray<Outcome["_tag"]> = ["SandboxFailed", "Lost"]

const beginFaults = Effect.gen(function*() {
  const context = yield* Effect.context<never>()
  const { classes } = yield* Settings
  const { definitions } = yield* Functions
  for (const intake of yield* Intakes) {
    for (const definition of definitions) {
      for (const sandboxClass of classes) {
        const labels = { intake: intake.name, function: definition.name, class: sandboxClass.name }
        for (const outcome of OWN_FAULTS) count(context, metrics.jobs, { ...labels, outcome }, 0)
      }
    }
  }
})

const make = Effect.fnUntraced(function*(version: string) {
  const context = yield* Effect.context<never>()
  const pools = yield* Pools
  const journal = yield* Journal
  const { instance, paths } = yield* Host
  const { diskReserveBytes, slots, waiting } = yield* Settings
  const loop = yield* EventLoop.make
  const total = makeTotals(context)
  const set = <L extends string>(gauge: Gauge<L>, labels: Labels<L>, value: number) =>
    gauge.series(labels).updateUnsafe(value, context)

  const pool = (stats: PoolStats) => {
    const own = { class: stats.class }
    const { expired, givenUp, hits, idle, leaving, lost, making, misses, unfit, used } = stats
    for (const [state, value] of Object.entries({ idle, used, making, leaving })) {
      set(metrics.poolSandboxes, { ...own, state }, value)
    }
    for (const [result, value] of Object.entries({ hit: hits, miss: misses, cold: unfit })) {
      total(metrics.poolTakes, { ...own, result }, value)
    }
    for (const [reason, value] of Object.entries({ expired, lost, given_up: givenUp })) {
      total(metrics.poolDiscarded, { ...own, reason }, value)
    }
    set(metrics.poolTarget, own, stats.target)
    set(metrics.poolWaiting, own, stats.waiting)
    set(metrics.poolFailing, own, (stats.failing?.forMs ?? 0) / 1000)
    total(metrics.poolFailures, own, stats.failures)
    if (stats.lastProvisionMs !== undefined) set(metrics.poolLastProvision, own, stats.lastProvisionMs / 1000)
  }

  const budget = ({ held, limits }: PoolsStats) => {
    for (const [kind, of] of Object.entries({ held, limit: limits })) {
      if (of.memoryBytes !== undefined) set(metrics.budgetMemory, { kind }, of.memoryBytes)
      if (of.cpus !== undefined) set(metrics.budgetCpus, { kind }, of.cpus)
      if (of.sandboxes !== undefined) set(metrics.budgetSandboxes, { kind }, of.sandboxes)
    }
  }

  const ownProcess = Effect.map(OwnProcess.usage, ({ cpuSeconds, heapBytes, residentBytes, uptimeSeconds }) => {
    set(metrics.processMemory, {}, residentBytes)
    set(metrics.processHeap, {}, heapBytes)
    set(metrics.processUptime, {}, uptimeSeconds)
    total(metrics.processCpu, {}, cpuSeconds)
  })

  const sample = Effect.flatMap(pools.stats, (stats) => {
    stats.classes.forEach(pool)
    budget(stats)
    return ownProcess
  })

  const eventLoop = Effect.map(loop, ({ utilization, ...delays }) => {
    for (const [statistic, value] of Object.entries(delays)) set(metrics.loopDelay, { statistic }, value)
    set(metrics.loopUtilization, {}, utilization)
  })

  const owed = journal.counts.pipe(
    Effect.map(({ owed, queued }) => {
      set(metrics.journalQueued, {}, queued)
      set(metrics.outboxOwed, {}, owed)
    }),
    Effect.timeout(JOURNAL_LIMIT),
    // Counted with the journal's errors; its users say what it means.
    Effect.ignore
  )

  const disk = Effect.map(OwnProcess.disk(paths.state), (disk) => {
    if (disk === undefined) return
    set(metrics.stateFree, {}, disk.freeBytes)
    set(metrics.stateSize, {}, disk.sizeBytes)
  })

  begin(context)
  yield* beginFaults
  set(metrics.build, { version, node: OwnProcess.nodeVersion, instance_id: instance }, 1)
  set(metrics.slots, {}, slots)
  set(metrics.waitingPlaces, {}, waiting)
  set(metrics.stateReserve, {}, diskReserveBytes)
  const loopOf = <E, R>(name: string, body: Effect.Effect<void, E, R>, pause: typeof OFTEN | typeof SELDOM) =>
    Actor.restarting(name, intensity, Effect.asVoid(Effect.repeat(body, Schedule.spaced(pause)))).pipe(
      Effect.annotateLogs({ actor: name }),
      Effect.forkScoped({ startImmediately: true })
    )
  // Before those who export close: what was counted last goes out too.
  yield* Effect.addFinalizer(() => sample)
  yield* loopOf("sampler", sample, OFTEN)
  yield* loopOf("slow sampler", Effect.all([eventLoop, disk, owed], { discard: true }), SELDOM)
  return Sampler.of({ sample })
})

/** `version`: Stoker's, for `stoker_build_info`. */
export const layer = (version: string) => Layer.effect(Sampler, make(version))
