/**
 * What a tail shows beside a job's own output: `[JOB]` lines, made of what is known of the job and never stored. The
 * command line and the old Tail show the same.
 */
import type { FunctionView } from "./JobView.ts"
import { describe, isSuccess, type Outcome } from "./Outcome.ts"

const line = (text: string): string => `[JOB] ${text}`

/** What people call a function, if the worker offers it still; else its name. */
export const titleOf = (functions: ReadonlyArray<Pick<FunctionView, "name" | "title">>, name: string): string =>
  functions.find((one) => one.name === name)?.title ?? name

/** Before an attempt's output. */
export const startLine = (title: string, attempt: number): string =>
  line(attempt <= 1 ? `Starting job '${title}'` : `Starting job '${title}' again, attempt ${attempt}`)

/** Where output is missing: so many bytes of it. */
export const gapLine = (bytes: number): string => line(`${bytes} bytes of output were not kept`)

/** After the output of a job that has ended. `complete` false: a worker died before it could write the end. */
export const endLines = (outcome: Outcome | undefined, complete = true): ReadonlyArray<string> => [
  ...(complete ? [] : [line("The end of the output may be missing")]),
  ...(outcome === undefined
    ? []
    : [
      isSuccess(outcome)
        ? line("Complete")
        : outcome._tag === "Stopped"
        ? line(outcome.reason === "" ? "Stopped" : `Stopped: ${outcome.reason}`)
        : line(`Failed: ${describe(outcome)}`)
    ])
]
