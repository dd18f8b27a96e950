/** `stoker jobs tail`, and what `jobs start --follow` shows. */
import { Effect, Option, Schema, Stream } from "effect"
import { StokerClient } from "../../client/StokerClient.ts"
import type { FollowEvent, FollowFrom } from "../../layers/api/JobApi.ts"
import type { LogStream } from "../../layers/log/Log.ts"
import { JobView } from "../../schemas/JobView.ts"
import type { StreamName } from "../../schemas/Outcome.ts"
import { endLines, gapLine, startLine, titleOf } from "../../schemas/Transcript.ts"
import { exitWith } from "../CliFailure.ts"
import { exitCode, exitCodeOf } from "../ExitCode.ts"
import { textOf } from "../JobSource.ts"
import { print, say, write } from "../Output.ts"
import { asking, titles } from "./Ask.ts"
import { oneLine } from "./JobWords.ts"
import type { ServerChoice } from "./ServerFlags.ts"

export interface TailFlags {
  readonly id: string
  readonly owner: Option.Option<string>
  readonly lines: Option.Option<number>
  readonly new: boolean
  readonly stream: LogStream
  readonly raw: boolean
  readonly noFollow: boolean
  readonly exitCode: boolean
  readonly json: boolean
}

const NEWLINE = 10

const encodeView = Schema.encodeSync(JobView)

/** Bytes as JSON: text where it is UTF-8, else base64. */
const encoded = (bytes: Uint8Array) => {
  const text = textOf(bytes)
  return text === undefined ? { base64: Buffer.from(bytes).toString("base64") } : { text }
}

/** One line of JSON for each event. */
const jsonOf = (event: FollowEvent): unknown => {
  if (event._tag === "Bytes") {
    const { bytes, ...rest } = event
    return { ...rest, ...encoded(bytes) }
  }
  return event._tag === "Ended" || event._tag === "Paused" ? { ...event, job: encodeView(event.job) } : event
}

/** Shows events as they come; the lines that are ours begin in the first column. */
const transcript = (title: string, raw: boolean) => {
  let isLineStart = true
  const own = Effect.fnUntraced(function*(...lines: ReadonlyArray<string>) {
    if (raw) return
    const before = isLineStart ? "" : "\n"
    isLineStart = true
    yield* print(`${before}${lines.join("\n")}`)
  })
  const bytes = (stream: StreamName, content: Uint8Array) => {
    if (content.length > 0) isLineStart = content.at(-1) === NEWLINE
    return write(raw ? stream : "stdout", content)
  }
  return Effect.fnUntraced(function*(event: FollowEvent) {
    switch (event._tag) {
      case "Begun":
        return yield* own(startLine(title, event.attempt))
      case "Bytes":
        return yield* bytes(event.stream, event.bytes)
      case "Gap":
        return yield* raw
          ? say(`stoker: ${event.to - event.from} bytes of ${event.stream} were not kept`)
          : own(gapLine(event.to - event.from))
      case "Ended": {
        const { end, job } = event
        yield* own(...endLines(job.outcome, end?.complete ?? true).map(oneLine))
        return yield* own("", "Job finished, no more output, exiting tail!")
      }
      case "Paused":
        return
    }
  })
}

/** Shows a job's output to its end; gives the job as it was last seen. */
export const showOutput = Effect.fnUntraced(function*(flags: TailFlags) {
  const client = yield* StokerClient
  const ref = { id: flags.id, ...(Option.isSome(flags.owner) ? { owner: flags.owner.value } : {}) }
  // Titles are asked for while the job is looked up: an unknown id is told before anything is shown.
  const [job, functions] = yield* Effect.all([client.status(ref), flags.raw ? Effect.succeed([]) : titles], {
    concurrency: 2
  })
  const from: FollowFrom = Option.isSome(flags.lines)
    ? { lastLines: flags.lines.value }
    : flags.new
    ? { newOnly: true }
    : { offset: 0 }
  const show = flags.json
    ? (event: FollowEvent) => print(JSON.stringify(jsonOf(event)))
    : transcript(titleOf(functions, job.function), flags.raw)
  let last = job
  yield* client.follow({
    ...ref,
    stream: flags.stream,
    from,
    wait: !flags.noFollow,
    onResume: (failure) => say(`stoker: ${failure.reason}; trying again`)
  }).pipe(
    Stream.runForEach((event) => {
      if (event._tag === "Ended" || event._tag === "Paused") last = event.job
      return show(event)
    }),
    // Whoever read it has gone: nobody is left to tell.
    Effect.catchTag("OutputClosed", () => Effect.void)
  )
  return last
})

/** The code `--exit-code` ends with. */
export const codeOf = ({ outcome }: JobView): number => outcome === undefined ? exitCode.trouble : exitCodeOf(outcome)

export const tailJob = (choice: ServerChoice, flags: TailFlags) =>
  Effect.flatMap(
    asking(choice, showOutput(flags)),
    (job) => flags.exitCode ? exitWith(codeOf(job)) : Effect.void
  )
