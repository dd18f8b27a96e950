/** How a job ended: exactly one per job. Exit codes, HTTP statuses and dialect words are derived from it elsewhere. */
import { Schema } from "effect"
import { PhaseName } from "./Program.ts"

/** A program's two outputs. */
export const StreamName = Schema.Literals(["stdout", "stderr"])
export type StreamName = typeof StreamName.Type

/** Each way a job can end, and what is known of it then. */
export const Outcome = Schema.TaggedUnion({
  /** The program ended by itself. `phase` is `compile` only when compiling failed. */
  Exited: { phase: PhaseName, code: Schema.Int },
  /** The program died of a signal nobody of ours sent. `signal` is its Linux number. */
  Signalled: { phase: PhaseName, signal: Schema.Natural },
  /** It was killed at its wall or CPU limit. */
  TimedOut: { phase: PhaseName, limit: Schema.Literals(["wall", "cpu"]), limitMs: Schema.Natural },
  /** The kernel killed one of its processes for want of memory, or what its files take left none to start it. */
  OutOfMemory: { phase: PhaseName, limitBytes: Schema.Natural },
  /** It wrote more than its limit and its policy was `kill`. */
  OutputExceeded: { phase: PhaseName, stream: StreamName, limitBytes: Schema.Natural },
  /** A user stopped it, before or while it ran. */
  Stopped: { reason: Schema.String },
  /** It could never run as asked: invalid arguments, limits above its class, a program that is not there. */
  Rejected: { reason: Schema.String, remedy: Schema.String },
  /** Stoker could not do its part: no sandbox, or a sandbox lost on the way. */
  SandboxFailed: { driver: Schema.String, reason: Schema.String, remedy: Schema.String },
  /** Every allowed attempt ended with its worker. */
  Lost: { attempts: Schema.Natural }
})
export type Outcome = typeof Outcome.Type

/** Whose doing it was. A total table: a new outcome does not compile until it is decided here. */
export const blame: Readonly<Record<Outcome["_tag"], "program" | "limits" | "user" | "stoker">> = {
  Exited: "program",
  Signalled: "program",
  TimedOut: "limits",
  OutOfMemory: "limits",
  OutputExceeded: "limits",
  Stopped: "user",
  Rejected: "user",
  SandboxFailed: "stoker",
  Lost: "stoker"
}

/** The program ran to its own end and said 0. */
export const isSuccess = (outcome: Outcome): boolean => outcome._tag === "Exited" && outcome.code === 0

/** Linux signal numbers by name, x86-64 and arm64 (signal(7)). */
export const signalNames: Readonly<Record<number, string>> = {
  1: "SIGHUP",
  2: "SIGINT",
  3: "SIGQUIT",
  4: "SIGILL",
  5: "SIGTRAP",
  6: "SIGABRT",
  7: "SIGBUS",
  8: "SIGFPE",
  9: "SIGKILL",
  10: "SIGUSR1",
  11: "SIGSEGV",
  12: "SIGUSR2",
  13: "SIGPIPE",
  14: "SIGALRM",
  15: "SIGTERM",
  24: "SIGXCPU",
  25: "SIGXFSZ",
  31: "SIGSYS"
}

/** One line for a person: what happened, and for limits which one. */
export const describe = (outcome: Outcome): string =>
  Outcome.match(outcome, {
    Exited: ({ code, phase }) =>
      phase === "compile"
        ? `did not compile (exit status ${code})`
        : code === 0
        ? "succeeded"
        : `exited with status ${code}`,
    Signalled: ({ signal }) => `was killed by ${signalNames[signal] ?? `signal ${signal}`}`,
    TimedOut: ({ limit, limitMs, phase }) => `${phase} exceeded its ${limit} time limit of ${limitMs} ms`,
    OutOfMemory: ({ limitBytes, phase }) => `${phase} exceeded its memory limit of ${limitBytes} bytes`,
    OutputExceeded: ({ limitBytes, stream }) => `wrote more than ${limitBytes} bytes to ${stream}`,
    Stopped: ({ reason }) => `was stopped: ${reason}`,
    Rejected: ({ reason, remedy }) => `was rejected: ${reason}. ${remedy}`,
    SandboxFailed: ({ driver, reason, remedy }) => `could not be run by ${driver}: ${reason}. ${remedy}`,
    Lost: ({ attempts }) => `was lost: its worker died in each of ${attempts} attempts`
  })
