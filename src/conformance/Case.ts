/** What a conformance case is, and how it says what is wrong. Knows no test framework. */
import { Cause, Effect, Schema } from "effect"
import { inspect, isDeepStrictEqual } from "node:util"
import type { Capability } from "../layers/sandbox/Sandbox.ts"
import { ConformanceHost } from "./ConformanceHost.ts"

/** What was tried is not as the contract has it. */
export class ConformanceFailure extends Schema.TaggedError<ConformanceFailure>()("ConformanceFailure", {
  case: Schema.String,
  expected: Schema.String,
  seen: Schema.String
}) {
  override get message() {
    return `${this.case}: expected ${this.expected}; seen: ${this.seen}`
  }
}

/** One promise of a contract. `needs`: only where the driver has all of these; see `casesFor`. */
export interface Case<R> {
  readonly name: string
  readonly needs: ReadonlyArray<Capability>
  /** Cleans up after itself, whatever it finds. Wants the real clock, not a test's. */
  readonly check: Effect.Effect<void, ConformanceFailure, R>
}

/** Those that a driver of these capabilities has to pass. */
export const casesFor = <R>(
  cases: ReadonlyArray<Case<R>>,
  capabilities: ReadonlySet<Capability>
): ReadonlyArray<Case<R>> => cases.filter(({ needs }) => needs.every((need) => capabilities.has(need)))

/** A case's own word before it knows its case's name. */
export class Mismatch extends Schema.TaggedError<Mismatch>()("Mismatch", {
  expected: Schema.String,
  seen: Schema.String
}) {}

/** No case of ours takes a tenth of it; what does not end is a failure of its own. Seconds on a plain machine. */
const PATIENCE_SECONDS = 60

const shown = (seen: unknown) => {
  const text = typeof seen === "string" ? seen : inspect(seen, { depth: 6, breakLength: Number.POSITIVE_INFINITY })
  return text.length > 2000 ? `${text.slice(0, 2000)}…` : text
}

/** Fails unless it holds. */
export const expect = (expected: string, holds: boolean, seen: unknown): Effect.Effect<void, Mismatch> =>
  holds ? Effect.void : Effect.fail(new Mismatch({ expected, seen: shown(seen) }))

/** Fails unless both are the same, all the way down. */
export const same = (what: string, seen: unknown, expected: unknown): Effect.Effect<void, Mismatch> =>
  expect(`${what} to be ${shown(expected)}`, isDeepStrictEqual(seen, expected), seen)

/** Fails unless the number is there and lies between both. */
export const between = (
  what: string,
  seen: number | undefined,
  least: number,
  most = Number.POSITIVE_INFINITY
): Effect.Effect<void, Mismatch> =>
  expect(`${what} from ${least} to ${most}`, seen !== undefined && seen >= least && seen <= most, seen)

/** A case of these words. Defects and what never ends are failures as well. */
export const define = <R>(
  name: string,
  needs: ReadonlyArray<Capability>,
  body: Effect.Effect<void, Mismatch, R>
): Case<Exclude<R, never> | ConformanceHost> => ({
  name,
  needs,
  check: Effect.gen(function*() {
    const { slowness } = yield* ConformanceHost
    const seconds = PATIENCE_SECONDS * slowness
    yield* body.pipe(
      Effect.timeoutOrElse({
        duration: `${seconds} seconds`,
        orElse: () => Effect.fail(new Mismatch({ expected: `an end within ${seconds} seconds`, seen: "none" }))
      }),
      Effect.catchCause((cause): Effect.Effect<never, Mismatch> => {
        const failure = cause.reasons.find(Cause.isFailReason)
        if (failure !== undefined) return Effect.fail(failure.error)
        if (Cause.hasInterruptsOnly(cause)) return Effect.failCause(cause as Cause.Cause<never>)
        return Effect.fail(new Mismatch({ expected: "no defect", seen: Cause.pretty(cause) }))
      }),
      Effect.mapError(({ expected, seen }) => new ConformanceFailure({ case: name, expected, seen }))
    )
  })
})
