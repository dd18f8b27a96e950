/**
 * One QEMU as a process of this host: it is known by its pid and the moment it began, it is killed and seen to be dead, and
 * what it and its guest said last is kept for whoever asks why.
 */
import { Effect, Option, type Scope } from "effect"
import { readFileSync } from "node:fs"
import type { HostError } from "../../host/Host.ts"
import { type LaunchedProcess, type Launcher, type LaunchRequest } from "../../host/Launcher.ts"
import { within } from "../../Release.ts"
import * as Argv from "./Argv.ts"
import * as Qmp from "./Qmp.ts"

/** For a kernel that is slow to free a machine's memory. */
const DEATH_LIMIT = "10 seconds"
/** `confine` tells its pid with its first instructions. */
const PID_LIMIT = "2 seconds"
/** A QEMU that lives answers at once; one whose guest has taken it over may not. */
const CONSOLE_LIMIT = "1 second"
/** Of the console, in characters: for people who look. */
const MOST_WORDS = 2000

export interface Process {
  readonly qmp: Qmp.Qmp
  /** Ends when the process has, with why as far as it is known. */
  readonly ended: Effect.Effect<string>
  /** The end of the guest's console up to now. */
  readonly console: Effect.Effect<string>
  /** Kills it, and comes back when it is gone, or after some time without success. */
  readonly kill: Effect.Effect<void>
  /** From here on it stops because we want it to. */
  readonly expectPause: Effect.Effect<void>
}

/** When the process began, in the kernel's ticks; undefined if there is none, or nothing but its exit status. */
const beganAt = (pid: number) => {
  try {
    const [, rest = ""] = /\) (.*)/s.exec(readFileSync(`/proc/${pid}/stat`, "utf8")) ?? []
    const fields = rest.split(" ")
    return fields[0] === "Z" || fields[0] === "X" ? undefined : fields[19]
  } catch {
    return undefined
  }
}

/** What a terminal would act upon is left out, and all but the end. */
// eslint-disable-next-line no-control-regex
const printable = (text: string) => text.replace(/\u001b\[[0-9;?]*[A-Za-z]|[^\n\t\x20-\x7e\u00a0-\uffff]/gu, "")

const panicOf = (console: string) => /^.*Kernel panic - not syncing: *(.*)$/m.exec(console)?.[1]?.trim()

const reasonOf = ({ data, event }: Qmp.Event) =>
  event === "SHUTDOWN" || event === "STOP" || event === "GUEST_PANICKED" ? String(data?.["reason"] ?? event) : undefined

const wordsOf = (process: LaunchedProcess, of: { readonly reason: string; readonly console: string }) =>
  Effect.map(process.said, (said) => {
    const panic = panicOf(of.console)
    return [
      panic === undefined ? of.reason : `the guest's kernel panicked: ${panic}`,
      ...said === "" ? [] : [`QEMU said: ${printable(said).trim()}`],
      ...of.console.trim() === "" ? [] : [`the end of its console: ${of.console.trim().slice(-MOST_WORDS)}`]
    ].filter((part) => part !== "").join("; ")
  })

/** The process runs, or will say why not; its scope kills it. */
export const start = Effect.fnUntraced(function*(
  launcher: Launcher["Service"],
  request: LaunchRequest
): Effect.fn.Return<Process, HostError, Scope.Scope> {
  const launched = yield* launcher.launch(request)
  const qmp = Qmp.make(launched.stream)
  const known = { reason: "", console: "", began: undefined as string | undefined, isPaused: false }

  // Before anybody could kill it by the number alone.
  const pid = yield* Effect.cached(Effect.tap(qmp.pid, (number) =>
    Effect.sync(() => {
      known.began = beganAt(number)
    })))

  const isAlive = (number: number) => known.began !== undefined && beganAt(number) === known.began

  const kill = Effect.gen(function*() {
    const number = yield* pid.pipe(Effect.timeoutOption(PID_LIMIT), Effect.orElseSucceed(() => Option.none<number>()))
    if (Option.isNone(number)) {
      launched.stream.destroy() // it cannot tell its pid any more, and dies of that
      return
    }
    yield* Effect.sync(() => {
      if (isAlive(number.value)) process.kill(number.value, "SIGKILL")
    }).pipe(Effect.ignoreCause)
    while (isAlive(number.value)) yield* Effect.sleep("2 millis")
    yield* launched.ended
  })
  yield* Effect.addFinalizer(() => within("a QEMU", DEATH_LIMIT)(kill))

  const console = qmp.execute("ringbuf-read", { device: "console", size: Argv.CONSOLE_BYTES }).pipe(
    Effect.map((read) => {
      // Reading takes it out of the buffer. Its ends are kept: a line may go on with the next piece, or end with this one.
      if (typeof read === "string") known.console = printable(known.console + read).slice(-Argv.CONSOLE_BYTES)
    }),
    Effect.timeout(CONSOLE_LIMIT),
    Effect.ignore,
    Effect.map(() => known.console.trim().slice(-MOST_WORDS))
  )

  // Of a guest that has ended QEMU is still there, and of no use but for its console.
  const watch = qmp.next("the guest's end", (event) => known.isPaused ? undefined : reasonOf(event)).pipe(
    Effect.flatMap((reason) =>
      Effect.gen(function*() {
        const { status } = Object(yield* qmp.execute("query-status").pipe(Effect.timeout(CONSOLE_LIMIT)))
        known.reason = status === "internal-error"
          ? "the processor gave up: what is called virtualisation here cannot run this guest"
          : `the guest ended (${reason})`
        yield* console
      })
    ),
    Effect.ignore,
    Effect.andThen(kill)
  )
  yield* Effect.forkScoped(pid)
  yield* Effect.forkScoped(watch)

  return {
    qmp,
    console,
    kill,
    expectPause: Effect.sync(() => {
      known.isPaused = true
    }),
    ended: Effect.andThen(launched.ended, Effect.suspend(() => wordsOf(launched, known)))
  }
})
