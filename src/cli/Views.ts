/** The views there are: for a person, for a pipe, for a program. */
import { Effect, Schedule, type Scope } from "effect"
import { monotonicNanos } from "../layers/Now.ts"
import { broughtBack, type JobEvent } from "../schemas/JobEvent.ts"
import type { StreamName } from "../schemas/Outcome.ts"
import { exitCodeOf } from "./ExitCode.ts"
import { textOf } from "./JobSource.ts"
import { print, say, terminal, wantsColour, write } from "./Output.ts"
import { type Report, summary } from "./Report.ts"
import * as Screen from "./Screen.ts"
import { style } from "./Style.ts"
import { formatMicros } from "./Units.ts"
import type { View } from "./View.ts"

const gapText = (stream: StreamName, count: number) =>
  `stoker: ${count} bytes of ${stream} left out here (--output-limit keeps more)`

/** Moves ten times a second. */
const FRAMES = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"]
const TICK = "100 millis"

const doing: Readonly<Record<string, string>> = {
  received: "preparing a sandbox",
  compile: "compiling",
  run: "running"
}

/** For a person: statuses as they come, progress if the terminal can, the output, a last line. */
export const live = Effect.fnUntraced(function*(
  options: { readonly progress: boolean }
): Effect.fn.Return<View, never, Scope.Scope> {
  const screen = yield* Screen.make
  const look = style(wantsColour("stderr"))
  const now = monotonicNanos
  let current: { readonly what: string; readonly since: bigint } | undefined
  let frame = 0

  const begin = (what: string | undefined) =>
    Effect.map(now, (since) => {
      current = what === undefined ? undefined : { what, since }
    })
  const tick = Effect.gen(function*() {
    if (current === undefined) return
    const micros = Number(((yield* now) - current.since) / 1000n)
    frame = (frame + 1) % FRAMES.length
    yield* screen.progress(`${FRAMES[frame]} ${doing[current.what] ?? current.what} ${(micros / 1e6).toFixed(1)} s`)
  })
  if (options.progress) yield* tick.pipe(Effect.repeat(Schedule.spaced(TICK)), Effect.forkScoped)

  const status = (word: string, detail: string) => screen.line(look.dim(`▸ ${word.padEnd(9)} ${detail}`))
  const event = (event: JobEvent): Effect.Effect<void> => {
    switch (event._tag) {
      case "Received":
        return Effect.andThen(begin("received"), status("received", event.key.id))
      case "Running":
        return status("running", "its sandbox is ready")
      case "PhaseStarted":
        return Effect.andThen(
          begin(event.phase),
          event.phase === "compile" ? Effect.void : status("started", "output follows")
        )
      case "PhaseEnded":
        return Effect.andThen(
          begin(undefined),
          event.phase === "compile"
            ? status(
              "compiled",
              `${event.usage.cached === true ? "(cached) " : ""}in ${formatMicros(event.usage.wallMicros)}`
            )
            : Effect.void
        )
      case "Ended":
        return begin(undefined)
    }
  }
  return {
    event,
    bytes: screen.bytes,
    gap: (stream, count) => screen.line(look.yellow(gapText(stream, count))),
    note: (text) => screen.line(look.yellow(text)),
    ended: (report) => screen.line(summary(report, look))
  }
})

/** For a pipe or a file: the program's output, and one line at the end. */
const forPipe: View = {
  event: () => Effect.void,
  bytes: write,
  gap: (stream, count) => say(gapText(stream, count)),
  note: say,
  ended: (report) => say(`stoker: ${summary(report, style(false))}`)
}

/** The program's output and nothing else, except that some of it is missing: that is never left unsaid. */
const quiet: View = { ...forPipe, note: () => Effect.void, ended: () => Effect.void }

/** Bytes as JSON: text where it is UTF-8, else base64. */
const encoded = (bytes: Uint8Array) => {
  const text = textOf(bytes)
  return text === undefined ? { base64: Buffer.from(bytes).toString("base64") } : { text }
}

/** One JSON document on stdout when the job has ended. */
const jsonDocument = (): View => {
  const kept: Record<StreamName, Array<Uint8Array>> = { stdout: [], stderr: [] }
  const outputOf = (report: Report, stream: StreamName) => {
    const found = report.output.find((one) => one.stream === stream)
    const dropped = found?.droppedBytes ?? 0
    return {
      ...encoded(Buffer.concat(kept[stream])),
      bytes: found?.producedBytes ?? 0,
      truncated: dropped > 0,
      droppedBytes: dropped
    }
  }
  return {
    event: () => Effect.void,
    bytes: (stream, bytes) => Effect.sync(() => void kept[stream].push(bytes)),
    gap: () => Effect.void,
    note: () => Effect.void,
    ended: (report) =>
      print(JSON.stringify({
        id: report.id,
        outcome: report.outcome,
        exitCode: exitCodeOf(report.outcome),
        ...(report.driver === undefined ? {} : { driver: report.driver }),
        usage: report.usage,
        output: { stdout: outputOf(report, "stdout"), stderr: outputOf(report, "stderr") },
        ...broughtBack(report)
      }))
  }
}

/** One JSON document a line for each event and each piece of output, the last one `Ended`. */
const jsonLines = (): View => {
  let last: JobEvent | undefined
  const line = (value: unknown) => print(JSON.stringify(value))
  return {
    event: (event) => {
      if (event._tag !== "Ended") return line(event)
      last = event
      return Effect.void
    },
    bytes: (stream, bytes) => line({ _tag: "Output", stream, ...encoded(bytes) }),
    gap: (stream, bytes) => line({ _tag: "Gap", stream, bytes }),
    note: () => Effect.void,
    ended: (report) => line(last ?? { _tag: "Ended", ...report })
  }
}

export interface ViewOptions {
  readonly json: boolean
  readonly events: boolean
  readonly quiet: boolean
}

/** The view for these flags and for where stderr leads. */
export const viewFor = (options: ViewOptions): Effect.Effect<View, never, Scope.Scope> => {
  if (options.events) return Effect.sync(jsonLines)
  if (options.json) return Effect.sync(jsonDocument)
  if (options.quiet) return Effect.succeed(quiet)
  return terminal("stderr").isTerminal ? live({ progress: true }) : Effect.succeed(forPipe)
}
