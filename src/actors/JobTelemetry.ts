/**
 * What a job actor lets others know of its work: counts and times for the metrics, spans for the trace, ids for the log
 * lines. Counted here, where it happens: watchers of the events may lag behind and lose some.
 */
import { Clock, Context, Effect, Metric } from "effect"
import { Settings } from "../layers/config/Settings.ts"
import { Functions } from "../layers/functions/Functions.ts"
import { Host } from "../layers/host/Host.ts"
import type { Delivery } from "../layers/intake/Intake.ts"
import { count, metrics, observeMicros } from "../layers/telemetry/Metrics.ts"
import { keyText } from "../schemas/Ids.ts"
import { keyOf } from "../schemas/Job.ts"
import type { StreamSummary } from "../schemas/JobEvent.ts"
import type { Outcome, StreamName } from "../schemas/Outcome.ts"
import type { PhaseUsage, Usage } from "../schemas/Usage.ts"
import * as JobTrace from "./JobTrace.ts"

/** A part of the work, wrapped where it is done. */
export type Step = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** How a delivery was parted with. */
export type DeliveryEnd = "acked" | "rejected" | "given_back"

export class JobTelemetry extends Context.Service<JobTelemetry, {
  /** The delivery as it is told about: with the traceparent of the job's own span. */
  readonly delivery: Delivery
  /** Around the asking for a claim. */
  readonly claiming: Step
  /** The claim is granted: the job runs from now on. */
  readonly granted: (attempt: number) => void
  /** Around what belongs to the attempt that was granted last. */
  readonly attempting: Step
  /** A sandbox is there; how long that took. */
  readonly provisioned: (micros: number) => void
  readonly phaseStarted: () => void
  readonly phaseEnded: (usage: PhaseUsage) => void
  readonly wrote: (stream: StreamName, bytes: number) => void
  readonly endingLog: Step
  readonly logEnded: (summaries: ReadonlyArray<StreamSummary>) => void
  /** Around the writing down of the outcome. */
  readonly settling: Step
  /** It is written down. */
  readonly settled: (outcome: Outcome, usage: Usage) => void
  /** Around the telling of it. */
  readonly telling: Step
  readonly putOff: (outcome: Outcome) => void
  readonly claimLost: () => void
  readonly parted: (end: DeliveryEnd, deliveries: number) => Effect.Effect<void>
}>()("stoker/actors/JobTelemetry") {}

const UNKNOWN = "unknown"

/** Labels of a job: what nobody configured is one name, for anybody may send any. */
const labelsOf = ({ job }: Delivery, context: Context.Context<Functions | Settings>) => {
  const { classes, defaultClass } = Context.get(context, Settings)
  const { definitions } = Context.get(context, Functions)
  const wanted = job.class ?? defaultClass
  return {
    intake: job.intake,
    function: definitions.some(({ name }) => name === job.function) ? job.function : UNKNOWN,
    class: classes.some(({ name }) => name === wanted) ? wanted : UNKNOWN
  }
}

/** Where the job stands among those in hand; the gauges follow. */
const standing = (context: Context.Context<never>) => {
  const gauges = { waiting: metrics.jobsWaiting.series({}), running: metrics.jobsRunning.series({}) }
  let at: keyof typeof gauges | undefined
  return (next: keyof typeof gauges | undefined) => {
    if (at !== undefined) gauges[at].modifyUnsafe(-1, context)
    if (next !== undefined) gauges[next].modifyUnsafe(1, context)
    at = next
  }
}

/** Only what metrics look up, and that a dozen times for each job: in a large context it costs more than the counting. */
const metricsOf = (services: Context.Context<never>) =>
  Context.make(Metric.MetricRegistry, Context.get(services, Metric.MetricRegistry)).pipe(
    Context.add(Metric.CurrentMetricAttributes, Context.get(services, Metric.CurrentMetricAttributes))
  )

/** For one job, with what is to be put around all of its life. Plain code: it runs for each job. */
const make = (delivery: Delivery, services: Context.Context<Functions | Host | Settings>) => {
  const context = metricsOf(services)
  const clock = Context.get(services, Clock.Clock)
  const receivedAt = clock.currentTimeNanosUnsafe()
  const now = () => clock.currentTimeNanosUnsafe()
  const begunAt = clock.monotonicTimeNanosUnsafe()
  const { instance } = Context.get(services, Host)
  const labels = labelsOf(delivery, services)
  const { intake } = labels
  const trace = JobTrace.make(services, delivery.job, receivedAt)
  trace.attribute("stoker.job.class", labels.class)
  trace.attribute("service.instance.id", instance)

  const stand = standing(context)
  const inHand = metrics.jobsInHand.series({})
  let ended: Outcome | undefined
  let attempt = 0
  let claimedAt = receivedAt
  let phaseAt = receivedAt
  /** A span, and the time it took in a histogram if it was done. */
  const timed = (name: string, histogram: Metric.Histogram<number>, done?: () => void): Step => (effect) =>
    trace.step(name)(Effect.suspend(() => {
      const begun = clock.monotonicTimeNanosUnsafe()
      return Effect.map(effect, (value) => {
        histogram.updateUnsafe(secondsSince(begun), context)
        done?.()
        return value
      })
    }))
  /** Monotonic, as its argument: the date may be set meanwhile. */
  const secondsSince = (begun: bigint) => Number(clock.monotonicTimeNanosUnsafe() - begun) / 1e9

  const key = { job: keyText(keyOf(delivery.job)), instance, ...trace.ids }
  const within: Step = (effect) =>
    Effect.annotateLogs(trace.within(effect), key).pipe(Effect.ensuring(Effect.suspend(() => {
      stand(undefined)
      inHand.modifyUnsafe(-1, context)
      return trace.end(ended)
    })))
  count(context, metrics.jobsReceived, { intake })
  inHand.modifyUnsafe(1, context)
  stand("waiting")
  const telemetry = JobTelemetry.of({
    delivery: trace.traceparent === undefined
      ? delivery
      : { ...delivery, job: { ...delivery.job, traceparent: trace.traceparent } },
    claiming: (effect) =>
      Effect.suspend(() => {
        claimedAt = now()
        return trace.step("stoker.claim")(effect)
      }),
    granted: (granted) => {
      attempt = granted
      trace.attribute("stoker.job.attempt", granted)
      trace.past("stoker.queue", receivedAt, claimedAt)
      stand("running")
    },
    attempting: (effect) => Effect.annotateLogs(effect, { attempt }),
    provisioned: (micros) => {
      const at = now()
      trace.past("stoker.provision", at - BigInt(micros) * 1000n, at, { "stoker.job.class": labels.class })
    },
    phaseStarted: () => {
      phaseAt = now()
    },
    phaseEnded: ({ cached, phase, wallMicros }) => {
      const last = now()
      const end = phaseAt + BigInt(wallMicros) * 1000n
      const attributes = cached === true ? { "stoker.cached": "true" } : {}
      trace.past(`stoker.phase.${phase}`, phaseAt, end < last ? end : last, attributes)
    },
    wrote: (stream, bytes) => count(context, metrics.logBytes, { stream }, bytes),
    endingLog: trace.step("stoker.log.end"),
    logEnded: (summaries) => {
      for (const { droppedBytes, stream } of summaries) {
        if (droppedBytes === 0) continue
        count(context, metrics.logGaps, {})
        count(context, metrics.logDropped, { stream }, droppedBytes)
      }
    },
    settling: timed("stoker.settle", metrics.jobSettle.series({})),
    settled: (outcome, usage) => {
      ended = outcome
      trace.attribute("stoker.job.outcome", outcome._tag)
      count(context, metrics.jobs, { ...labels, outcome: outcome._tag })
      if (usage.queuedMicros !== undefined) observeMicros(context, metrics.jobQueue, { intake }, usage.queuedMicros)
      if (usage.claimMicros !== undefined) observeMicros(context, metrics.jobClaim, {}, usage.claimMicros)
      if (usage.provisionMicros !== undefined) {
        observeMicros(context, metrics.jobProvision, labels, usage.provisionMicros)
      }
      for (const { cached, phase, wallMicros } of usage.phases) {
        // Nothing ran, and the time of a lookup would pass for that of a compiler.
        if (cached === true) continue
        observeMicros(context, metrics.jobPhase, { function: labels.function, phase }, wallMicros)
      }
    },
    telling: timed(
      "stoker.tell",
      metrics.jobTell.series({}),
      () => metrics.job.series(labels).updateUnsafe(secondsSince(begunAt), context)
    ),
    putOff: (outcome) => {
      ended = outcome
      trace.attribute("stoker.job.outcome", outcome._tag)
      count(context, metrics.jobRetries, { intake })
    },
    claimLost: () => count(context, metrics.claimsLost, {}),
    parted: (end, deliveries) => Effect.sync(() => count(context, metrics.deliveries, { intake, end }, deliveries))
  })
  return { telemetry, within }
}

/** Around a job actor's life. */
export const around = (delivery: Delivery) => <A, E, R>(life: Effect.Effect<A, E, R>) =>
  Effect.contextWith((context: Context.Context<Functions | Host | Settings>) => {
    const { telemetry, within } = make(delivery, context)
    return Effect.provideService(within(life), JobTelemetry, telemetry)
  })

/** Around what belongs to the attempt that was granted: its log lines say which. */
export const attempting = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R | JobTelemetry> =>
  Effect.flatMap(JobTelemetry, ({ attempting }) => attempting(effect))
