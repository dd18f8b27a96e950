/** Which traces are exported: those of jobs, as the configured sampler decides. */
import { Option, Tracer } from "effect"
import type { Sampler } from "./OtlpOptions.ts"

/** By the last 63 bits of the trace id, as other SDKs do it, so that all services of a trace decide alike. */
const keeps = (ratio: number, traceId: string) => Number(BigInt(`0x${traceId.slice(16)}`) >> 1n) / 2 ** 63 < ratio

/**
 * A trace begins with a job, whose span is a consumer's; the worker's own rounds (looking into its queue, sweeping) begin
 * none. Below a span of ours everything goes with it.
 */
export const sampled = (tracer: Tracer.Tracer, { parentBased, ratio }: Sampler): Tracer.Tracer =>
  Tracer.make({
    ...tracer,
    span: (options) => {
      const parent = Option.getOrUndefined(options.parent)
      if (parent?._tag === "Span") return tracer.span(options)
      if (parent === undefined && options.kind !== "consumer") return tracer.span({ ...options, sampled: false })
      if (parent !== undefined && parentBased) return tracer.span({ ...options, sampled: parent.sampled })
      const span = tracer.span({ ...options, sampled: ratio > 0 })
      return ratio === 1 || ratio === 0 || keeps(ratio, span.traceId)
        ? span
        : tracer.span({ ...options, sampled: false })
    }
  })
