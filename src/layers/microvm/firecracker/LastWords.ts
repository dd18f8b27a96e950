/** What a Firecracker that has ended left behind, in words for the log and the operator. */
import { Schema } from "effect"

/** Meanings of its exit codes that are no plain end. Any code but 0 is an error, 0 is also what a panicked guest gets. */
const meanings: Readonly<Record<number, string>> = {
  1: "it failed",
  2: "it failed in a way that it thought impossible",
  148: "a system call outside of its seccomp filter",
  149: "SIGBUS: memory that could not be had, such as a snapshot's file that was cut, or a full disk below it",
  150: "SIGSEGV",
  151: "SIGXFSZ: a file grew beyond its limit",
  152: "a configuration that it cannot use",
  153: "arguments that it does not know",
  154: "SIGXCPU",
  155: "SIGPIPE",
  156: "SIGHUP",
  157: "SIGILL"
}

/** What is taken of a stream's end, in characters. */
const MOST_TOLD = 1500

/** No control characters: part of it may be a guest's. */
const printable = (text: string) => text.replaceAll(/[^\P{C}\n\t]/gu, "?").trim().slice(-MOST_TOLD)

const Metrics = Schema.fromJsonString(Schema.Struct({
  seccomp: Schema.Struct({ num_faults: Schema.Finite }),
  vmm: Schema.Struct({ panic_count: Schema.Finite })
}))
const decode = Schema.decodeUnknownOption(Metrics)

const counted = (metrics: string) => {
  const last = decode(metrics.trimEnd().split("\n").at(-1) ?? "")
  if (last._tag === "None") return []
  const { seccomp, vmm } = last.value
  return [
    ...(seccomp.num_faults > 0 ? [`${seccomp.num_faults} system calls outside of its filter`] : []),
    ...(vmm.panic_count > 0 ? ["it panicked"] : [])
  ]
}

/** `console`: the end of its standard output, with what the guest wrote to a serial port. `metrics`: the end of that file. */
export const lastWords = (stderr: string, console: string, metrics: string): string => {
  const code = /exit_code=(\d{1,3})\b/.exec(console)?.[1] ?? /MicroVMStoppedWithError\((\w+)\)/.exec(stderr)?.[1]
  const meaning = code === undefined ? undefined : meanings[Number(code)]
  const parts = [
    code === undefined ? "it ended" : `it ended with ${code}${meaning === undefined ? "" : ` (${meaning})`}`,
    ...counted(metrics),
    ...(stderr.trim() === "" ? [] : [`it said: ${printable(stderr)}`]),
    ...(console.trim() === "" ? [] : [`its output ended with: ${printable(console)}`])
  ]
  return parts.join("; ")
}
