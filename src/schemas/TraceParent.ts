/** The W3C `traceparent`: which trace a job belongs to, and which span of it sent the job. */
import { Option } from "effect"

export interface TraceParent {
  /** 32 hexadecimal digits, not all 0. */
  readonly traceId: string
  /** 16 hexadecimal digits, not all 0. */
  readonly spanId: string
  readonly sampled: boolean
}

const pattern = /^(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?$/

/** What a sender wrote; nothing if it is none. A later version may have more fields behind ours. */
export const parse = (text: string | undefined): Option.Option<TraceParent> => {
  const [, traceId, spanId, flags] = pattern.exec(text ?? "") ?? []
  if (traceId === undefined || spanId === undefined || flags === undefined) return Option.none()
  // Version 00 has no more fields.
  if (text?.startsWith("00") === true && text.length !== 55) return Option.none()
  return Option.some({ traceId, spanId, sampled: (Number.parseInt(flags, 16) & 1) === 1 })
}

export const format = ({ sampled, spanId, traceId }: TraceParent): string =>
  `00-${traceId}-${spanId}-${sampled ? "01" : "00"}`
