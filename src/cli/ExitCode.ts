/** What the command line's exit codes mean: one table for the code and for the help text. */
import { Outcome } from "../schemas/Outcome.ts"

export const exitCode = {
  usage: 1,
  outputLimit: 122,
  timeLimit: 124,
  trouble: 125,
  rejected: 126,
  stopped: 130,
  outOfMemory: 137
} as const

/** Code (or how it is made) and meaning, in the order of the help text. */
export const exitCodes: ReadonlyArray<readonly [code: string, meaning: string]> = [
  ["0..255", "the program's own exit status (or its compiler's, if it did not compile)"],
  ["128+n", "the program was killed by signal n"],
  [`${exitCode.timeLimit}`, "it reached its wall or CPU time limit"],
  [`${exitCode.outOfMemory}`, "it ran out of memory"],
  [`${exitCode.outputLimit}`, "it was killed for writing more than its output limit (--over-output kill)"],
  [`${exitCode.stopped}`, "it was stopped (Ctrl-C)"],
  [`${exitCode.rejected}`, "the job was rejected: it could never run as asked"],
  [`${exitCode.trouble}`, "no sandbox could be made, or the worker had trouble"],
  [`${exitCode.usage}`, "wrong flags or arguments, or a command of stoker failed"]
]

/** A linux signal of a program, or of ourselves, as a shell reports it. */
export const signalCode = (signal: number): number => 128 + signal

/** The exit code of a job's outcome. A total table: a new outcome does not compile until it is decided here. */
export const exitCodeOf = (outcome: Outcome): number =>
  Outcome.match(outcome, {
    Exited: ({ code }) => code,
    Signalled: ({ signal }) => signalCode(signal),
    TimedOut: () => exitCode.timeLimit,
    OutOfMemory: () => exitCode.outOfMemory,
    OutputExceeded: () => exitCode.outputLimit,
    Stopped: () => exitCode.stopped,
    Rejected: () => exitCode.rejected,
    SandboxFailed: () => exitCode.trouble,
    Lost: () => exitCode.trouble
  })

/** For `--help`. */
export const exitCodeHelp: string = [
  "Exit codes:",
  ...exitCodes.map(([code, meaning]) => `  ${code.padEnd(7)} ${meaning}`)
].join("\n")
