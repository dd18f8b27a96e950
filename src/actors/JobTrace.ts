/**
 * One trace for each job: the span `stoker.job`, a child of its sender's span if it has one, and below it a span for
 * each step with its true times. Where nobody exports spans none is made, and only the sender's ids go into the logs.
 */
import { Clock, Context, Effect, Exit, Option, Tracer } from "effect"
import type { Job } from "../schemas/Job.ts"
import { blame, describe, type Outcome } from "../schemas/Outcome.ts"
import { format, parse } from "../schemas/TraceParent.ts"

export interface JobTrace {
  /** What messages about the job carry: the ids of its own span, else the sender's. */
  readonly traceparent: string | undefined
  /** For the log lines of the job; empty when it belongs to no trace. */
  readonly ids: Readonly<Record<string, string>>
  readonly attribute: (name: string, value: string | number) => void
  /** A step that is over. Nanoseconds since 1970. */
  readonly past: (name: string, begun: bigint, ended: bigint, attributes?: Readonly<Record<string, string>>) => void
  /** Spans that an effect makes lie below the job's. */
  readonly within: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  /** A step that is an effect; what it does lies below it. */
  readonly step: (name: string) => <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  /** Ends the job's span: an error where the outcome is Stoker's own doing. */
  readonly end: (outcome: Outcome | undefined) => Effect.Effect<void>
}

/** Nobody listens: the sender's ids are handed on. */
const silent = (job: Job): JobTrace => ({
  traceparent: job.traceparent,
  ids: Option.match(parse(job.traceparent), {
    onNone: () => ({}),
    onSome: ({ spanId, traceId }) => ({ trace_id: traceId, span_id: spanId })
  }),
  attribute: () => {},
  past: () => {},
  within: (effect) => effect,
  step: () => (effect) => effect,
  end: () => Effect.void
})

const traced = (tracer: Tracer.Tracer, clock: Clock.Clock, job: Job, begun: bigint): JobTrace => {
  const make = (name: string, parent: Option.Option<Tracer.AnySpan>, kind: Tracer.SpanKind, startTime: bigint) =>
    tracer.span({
      name,
      parent,
      annotations: Context.empty(),
      links: [],
      startTime,
      kind,
      root: Option.isNone(parent),
      sampled: Option.isNone(parent) || parent.value.sampled
    })
  const span = make("stoker.job", Option.map(parse(job.traceparent), Tracer.externalSpan), "consumer", begun)
  const { sampled, spanId, traceId } = span
  for (const [name, value] of Object.entries({ id: job.id, owner: job.owner, intake: job.intake })) {
    span.attribute(`stoker.job.${name}`, value)
  }
  span.attribute("stoker.job.function", job.function)
  const below = Option.some(span)
  return {
    traceparent: format({ traceId, spanId, sampled }),
    ids: { trace_id: traceId, span_id: spanId },
    attribute: (name, value) => span.attribute(name, value),
    past: (name, begun, ended, attributes = {}) => {
      const step = make(name, below, "internal", begun)
      for (const [key, value] of Object.entries(attributes)) step.attribute(key, value)
      step.end(ended, Exit.void)
    },
    within: Effect.withParentSpan(span, { captureStackTrace: false }),
    step: (name) => (effect) =>
      Effect.suspend(() => {
        const step = make(name, below, "internal", clock.currentTimeNanosUnsafe())
        return Effect.onExit(
          Effect.withParentSpan(effect, step, { captureStackTrace: false }),
          (exit) => Effect.sync(() => step.end(clock.currentTimeNanosUnsafe(), exit))
        )
      }),
    end: (outcome) =>
      Effect.sync(() =>
        span.end(
          clock.currentTimeNanosUnsafe(),
          outcome !== undefined && blame[outcome._tag] === "stoker" ? Exit.fail(describe(outcome)) : Exit.void
        )
      )
  }
}

/** `begun`: when the job was received, nanoseconds since 1970. */
export const make = (context: Context.Context<never>, job: Job, begun: bigint): JobTrace => {
  const tracer = Context.get(context, Tracer.Tracer)
  return tracer === Tracer.nativeTracer ? silent(job) : traced(tracer, Context.get(context, Clock.Clock), job, begun)
}
