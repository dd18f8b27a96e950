/** The words of workernator's two services: states by number, errors as its clients print them, arguments of typed jobs. */
import { Result } from "effect"
import type { JobView } from "../JobView.ts"
import { describe, isSuccess, type Outcome } from "../Outcome.ts"

/** `JobStatus`, in both of its files. */
export const statusNumbers = { Unknown: 0, Running: 1, Failed: 2, Finished: 3, Stopped: 4 } as const

/**
 * A job that has not begun is `Unknown`: the old server had no such state. `Stopped` is a job that somebody stopped; one
 * that died of a signal of its own is `Failed`, where the old one told both alike.
 */
export const statusNumber = ({ outcome, state }: Pick<JobView, "outcome" | "state">): number =>
  state === "queued"
    ? statusNumbers.Unknown
    : state === "running"
    ? statusNumbers.Running
    : outcome !== undefined && isSuccess(outcome)
    ? statusNumbers.Finished
    : outcome?._tag === "Stopped"
    ? statusNumbers.Stopped
    : statusNumbers.Failed

/** `error_msg`: as Go's processes told it where there is such a word, else ours; empty unless the job failed. */
export const errorText = (outcome: Outcome | undefined): string =>
  outcome === undefined || isSuccess(outcome) || outcome._tag === "Stopped"
    ? ""
    : outcome._tag === "Exited" && outcome.phase === "run"
    ? `exit status ${outcome.code}`
    : describe(outcome)

/** `JobType` by the field of `Arguments` that has its arguments. */
export const typeNumbers = { noop: 0, fib: 1, expr: 2, wait: 3 } as const

/** What a job of that type is called here. */
export const functionNames = { noop: "noop", fib: "fib", expr: "eval", wait: "wait" } as const

/** A float as whoever wrote it meant it: 0.1, not 0.10000000149011612. */
export const ofFloat = (value: number): number => {
  for (let digits = 6; digits <= 9; digits++) {
    const short = Number(value.toPrecision(digits))
    if (Math.fround(short) === value) return short
  }
  return value
}

/** `Arguments` without the library's wrapping. */
export type TypedArguments =
  | { readonly case: "noop" }
  | { readonly case: "fib"; readonly value: { readonly number: bigint } }
  | { readonly case: "expr"; readonly value: { readonly expression: string; readonly args: Record<string, number> } }
  | { readonly case: "wait"; readonly value: { readonly urlToPost: string; readonly waitSeconds: number } }

/** Why a typed request cannot be meant. */
export interface Mismatch {
  readonly reason: string
  readonly remedy: string
}

/** The function and its arguments. A type without arguments is one only if it is `Noop`, so that an unset type is harmless. */
export const functionOf = (
  type: number,
  args: TypedArguments | { readonly case: undefined }
): Result.Result<{ readonly function: string; readonly args: unknown }, Mismatch> => {
  if (args.case === undefined) {
    return type === typeNumbers.noop
      ? Result.succeed({ function: "noop", args: {} })
      : Result.fail({ reason: `job type ${type} comes without its arguments`, remedy: "Set args." })
  }
  if (type !== typeNumbers[args.case]) {
    return Result.fail({
      reason: `job type ${type} comes with arguments of another type (${args.case})`,
      remedy: `Set job_type ${typeNumbers[args.case]}, or other args.`
    })
  }
  const name = functionNames[args.case]
  switch (args.case) {
    case "noop":
      return Result.succeed({ function: name, args: {} })
    case "fib":
      return Result.succeed({ function: name, args: { number: Number(args.value.number) } })
    case "expr": {
      const { args: variables, expression } = args.value
      const values = Object.fromEntries(Object.entries(variables).map(([key, value]) => [key, ofFloat(value)]))
      return Result.succeed({
        function: name,
        args: Object.keys(values).length === 0 ? { expression } : { expression, args: values }
      })
    }
    case "wait":
      return Result.succeed({ function: name, args: { url: args.value.urlToPost, seconds: args.value.waitSeconds } })
  }
}

const record = (value: unknown): Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null ? value as Readonly<Record<string, unknown>> : {}

/** The other way: arguments of a job as they were sent, if it is of a type there is. */
export const argumentsOf = (name: string, sent: unknown): TypedArguments | undefined => {
  const args = record(sent)
  switch (name) {
    case "noop":
      return { case: "noop" }
    case "fib":
      return typeof args["number"] === "number" && Number.isSafeInteger(args["number"])
        ? { case: "fib", value: { number: BigInt(args["number"]) } }
        : undefined
    case "eval":
      return {
        case: "expr",
        value: {
          expression: String(args["expression"]),
          args: Object.fromEntries(
            Object.entries(record(args["args"])).flatMap(([key, value]) =>
              typeof value === "number" ? [[key, value]] : []
            )
          )
        }
      }
    case "wait":
      return { case: "wait", value: { urlToPost: String(args["url"]), waitSeconds: Number(args["seconds"]) } }
    default:
      return undefined
  }
}

/** Command and arguments of a `command` job; of other functions their name. */
export const commandOf = (
  { args: sent, function: name }: Pick<JobView, "args" | "function">
): { readonly command: string; readonly args: ReadonlyArray<string> } => {
  const { argv, command } = record(sent)
  if (name === "command" && Array.isArray(argv) && argv.every((word) => typeof word === "string")) {
    const [first = "", ...args] = argv
    return { command: first, args }
  }
  return typeof command === "string" ? { command: "/bin/sh", args: ["-c", command] } : { command: name, args: [] }
}
