/**
 * The statuses of the CodeBench worker: `received`, `running`, then `done` or `failed`, each with all eight fields
 * (codebench-dev/worker at 8b87916). The agent's words for outcomes come from codebench-dev/agent at 695d8e2.
 */
import { Schema } from "effect"
import { JobId } from "../Ids.ts"
import { describe, isSuccess, Outcome } from "../Outcome.ts"
import type { PhaseName } from "../Program.ts"
import type { Usage } from "../Usage.ts"
import type { StatusForm } from "./CodeBench.ts"

/** A status message's content. Field names and units are the old worker's. */
export const CodeBenchStatus = Schema.Struct({
  id: JobId,
  status: Schema.Literals(["received", "running", "done", "failed"]),
  message: Schema.String,
  error: Schema.String,
  stderr: Schema.String,
  stdout: Schema.String,
  /** Elapsed time of the run phase, microseconds; 0 if it did not run. */
  exec_duration: Schema.Natural,
  /** Peak memory of the run phase, KiB; 0 if it did not run or could not be measured. */
  mem_usage: Schema.Natural
})
export type CodeBenchStatus = typeof CodeBenchStatus.Type

/** The job is in a worker's hands, or has begun. */
export const progress = (id: JobId, status: "received" | "running"): CodeBenchStatus => ({
  id,
  status,
  message: "",
  error: "",
  stderr: "",
  stdout: "",
  exec_duration: 0,
  mem_usage: 0
})

/** What Go calls Linux' signals (package syscall), which the old agent put after `signal: `. */
const goSignals: Readonly<Record<number, string>> = {
  1: "hangup",
  2: "interrupt",
  3: "quit",
  4: "illegal instruction",
  5: "trace/breakpoint trap",
  6: "aborted",
  7: "bus error",
  8: "floating point exception",
  9: "killed",
  10: "user defined signal 1",
  11: "segmentation fault",
  12: "user defined signal 2",
  13: "broken pipe",
  14: "alarm clock",
  15: "terminated",
  16: "stack fault",
  17: "child exited",
  18: "continued",
  19: "stopped (signal)",
  20: "stopped",
  21: "stopped (tty input)",
  22: "stopped (tty output)",
  23: "urgent I/O condition",
  24: "CPU time limit exceeded",
  25: "file size limit exceeded",
  26: "virtual timer expired",
  27: "profiling timer expired",
  28: "window changed",
  29: "I/O possible",
  30: "power failure",
  31: "bad system call"
}

const goSignalNumbers: ReadonlyMap<string, number> = new Map(
  Object.entries(goSignals).map(([number, name]) => [name, Number(number)])
)

/** The signal that Go calls so (`killed`, `signal 34`), by its number. */
export const goSignalNumber = (name: string): number | undefined => {
  const other = Number(/^signal ([1-9][0-9]?)$/.exec(name)?.[1])
  return goSignalNumbers.get(name) ?? (other <= 64 ? other : undefined)
}

const failedTo = (phase: PhaseName) => (phase === "compile" ? "Failed to compile" : "Failed to run")

/** `message` and `error` of an ended job. */
const wordsOf = (outcome: Outcome): { readonly message: string; readonly error: string } => {
  const inPhase = (phase: PhaseName) => ({ message: failedTo(phase), error: describe(outcome) })
  const whole = () => inPhase("run")
  return Outcome.match(outcome, {
    Exited: ({ code, phase }) =>
      isSuccess(outcome)
        ? { message: "Success", error: "" }
        : { message: failedTo(phase), error: `exit status ${code}` },
    Signalled: ({ phase, signal }) => ({
      message: failedTo(phase),
      error: `signal: ${goSignals[signal] ?? `signal ${signal}`}`
    }),
    TimedOut: ({ phase }) => inPhase(phase),
    OutOfMemory: ({ phase }) => inPhase(phase),
    OutputExceeded: ({ phase }) => inPhase(phase),
    Stopped: whole,
    Rejected: whole,
    SandboxFailed: whole,
    Lost: whole
  })
}

/** A job's last status. Output and usage are there whatever the outcome; after a failed compile, the compiler's. */
export const ended = (
  id: JobId,
  outcome: Outcome,
  usage: Usage,
  output: { readonly stdout: string; readonly stderr: string }
): CodeBenchStatus => {
  const run = usage.phases.find((phase) => phase.phase === "run")
  return {
    id,
    status: isSuccess(outcome) ? "done" : "failed",
    ...wordsOf(outcome),
    stderr: output.stderr,
    stdout: output.stdout,
    exec_duration: run?.wallMicros ?? 0,
    mem_usage: Math.round((run?.memoryPeakBytes ?? 0) / 1024)
  }
}

/** The JSON text, its fields in the order of the form's own time; the README's four come first in the `queue` form. */
export const encode = (form: StatusForm, status: CodeBenchStatus): string => {
  const { error, exec_duration, id, mem_usage, message, status: word, stderr, stdout } = status
  return form === "exchange"
    ? JSON.stringify({ id, status: word, message, error, stderr, stdout, exec_duration, mem_usage })
    : JSON.stringify({ id, status: word, stderr, stdout, message, error, exec_duration, mem_usage })
}

/** Output as a status carries it: bytes that were kept, or the number of bytes that were not. */
export type OutputPiece = Uint8Array | number

/** Bytes as text: what is not UTF-8 becomes U+FFFD, and a mark stands where bytes are missing. */
export const outputText = (pieces: ReadonlyArray<OutputPiece>): string => {
  let whole = ""
  let missing = 0
  let decoder = new TextDecoder("utf-8", { ignoreBOM: true })
  const mark = () => {
    if (missing === 0) return
    whole += `${decoder.decode()}\n[${missing} bytes left out here]\n`
    decoder = new TextDecoder("utf-8", { ignoreBOM: true })
    missing = 0
  }
  for (const piece of pieces) {
    if (typeof piece === "number") {
      missing += piece
    } else if (piece.byteLength > 0) {
      mark()
      whole += decoder.decode(piece, { stream: true })
    }
  }
  mark()
  return whole + decoder.decode()
}
