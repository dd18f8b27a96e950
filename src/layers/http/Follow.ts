/** Following a job's output: facts as Server-Sent Events or lines of NDJSON, with a sign of life between them. */
import { Cause, Effect, Result, Schedule, Schema, Stream } from "effect"
import { HttpServerResponse } from "effect/http"
import { randomUUID } from "node:crypto"
import { FollowLine } from "../../schemas/api/FollowLine.ts"
import type { ApiError, FollowEvent, FollowFrom } from "../api/JobApi.ts"
import { defect, malformed, problemOf, type Refusal } from "./Problems.ts"

/** Most bytes of output in one event: what a slow reader makes the worker hold is a few of them. */
const MOST_BYTES = 64 * 1024
const SIGN_OF_LIFE = "15 seconds"

/** Where to go on: after a certain byte of a certain writing, or nowhere since the end was told. */
export type Resumed = { readonly offset: number; readonly run: string } | "ended"

const eventId = (place: number | "end", run: string) => `${place}@${encodeURIComponent(run)}`

/** A `Last-Event-ID`, as we gave it. */
export const resumedAt = (id: string | undefined): Result.Result<Resumed | undefined, Refusal> => {
  if (id === undefined || id === "") return Result.succeed(undefined)
  const [, place = "", run = ""] = /^(end|\d{1,15})@([A-Za-z0-9%._~!'()*-]*)$/.exec(id) ?? []
  const decoded = Result.try(() => decodeURIComponent(run))
  if (place === "" || Result.isFailure(decoded)) {
    return Result.fail(malformed("Last-Event-ID is none of ours", "Send the id of the last event that came, or none."))
  }
  return Result.succeed(place === "end" ? "ended" : { offset: Number(place), run: decoded.success })
}

export interface Beginning {
  readonly offset?: number | undefined
  readonly lastLines?: number | undefined
  readonly newOnly?: boolean | undefined
}

/** At most one of the three is said. */
export const beginningOf = (
  { lastLines, newOnly, offset }: Beginning
): Result.Result<FollowFrom | undefined, Refusal> => {
  const said: ReadonlyArray<FollowFrom> = [
    ...(offset === undefined ? [] : [{ offset }]),
    ...(lastLines === undefined ? [] : [{ lastLines }]),
    ...(newOnly === true ? [{ newOnly } as const] : [])
  ]
  return said.length > 1
    ? Result.fail(malformed("it says in several ways where to begin", "Send one of offset, lastLines and newOnly."))
    : Result.succeed(said[0])
}

const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/** Exactly these bytes, readable where they are text. */
const contentOf = (bytes: Uint8Array): { readonly text: string } | { readonly base64: string } =>
  Result.match(Result.try(() => strict.decode(bytes)), {
    onSuccess: (text) => ({ text }),
    onFailure: () => ({ base64: Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64") })
  })

/** Pieces of a bounded size, cut between characters where that costs a byte or three. */
const cut = (bytes: Uint8Array): ReadonlyArray<Uint8Array> => {
  const parts: Array<Uint8Array> = []
  let from = 0
  while (bytes.length - from > MOST_BYTES) {
    let to = from + MOST_BYTES
    for (let back = 0; back < 3 && ((bytes[to] ?? 0) & 0xc0) === 0x80; back++) to--
    parts.push(bytes.subarray(from, to))
    from = to
  }
  parts.push(bytes.subarray(from))
  return parts
}

const outputLines = (run: string, { bytes, offset, stream }: Extract<FollowEvent, { readonly _tag: "Bytes" }>) =>
  cut(bytes).map((part): FollowLine => {
    const at = offset + part.byteOffset - bytes.byteOffset
    return {
      id: eventId(at + part.length, run),
      event: "output",
      data: { stream, offset: at, ...contentOf(part) }
    }
  })

/** What is sent of one fact, and the run the next ones belong to. */
const linesOf = (run: string, event: FollowEvent): readonly [string, ReadonlyArray<FollowLine>] => {
  switch (event._tag) {
    case "Begun": {
      const { _tag: _, ...data } = event
      return [event.run, [{ id: eventId(event.offset, event.run), event: "begun", data }]]
    }
    case "Bytes":
      return [run, outputLines(run, event)]
    case "Gap": {
      const { _tag: _, ...data } = event
      return [run, [{ id: eventId(event.to, run), event: "gap", data }]]
    }
    case "Ended": {
      const { end, job } = event
      const output = end === undefined ? {} : { output: end.summaries, complete: end.complete }
      return [run, [{ id: eventId("end", run), event: "end", data: { job, ...output } }]]
    }
    case "Paused":
      return [run, [{
        id: eventId(event.next, run),
        event: "paused",
        data: { job: event.job, next: event.next }
      }]]
  }
}

/** What ended a stream before its time is its last event. */
const lastWord = (cause: Cause.Cause<ApiError>): Stream.Stream<FollowLine> => {
  const failure = cause.reasons.find(Cause.isFailReason)
  if (failure !== undefined) return Stream.succeed({ event: "problem", data: problemOf(failure.error) })
  const id = randomUUID()
  return Stream.fromEffect(
    Effect.logError("following a job ended in a defect", cause).pipe(
      Effect.annotateLogs({ defect: id }),
      Effect.as<FollowLine>({ event: "problem", data: defect(id) })
    )
  )
}

const encode = Schema.encodeSync(FollowLine)

/** The two forms: what one fact looks like, what comes first, and what says that the connection lives. */
const forms = {
  sse: {
    type: "text/event-stream",
    begin: ": stoker\n\n",
    alive: ": alive\n\n",
    write: (line: FollowLine) => {
      const { data, event, id } = encode(line)
      return `${id === undefined ? "" : `id: ${id}\n`}event: ${event}\ndata: ${JSON.stringify(data)}\n\n`
    }
  },
  ndjson: {
    type: "application/x-ndjson",
    begin: "\n",
    alive: "\n",
    write: (line: FollowLine) => `${JSON.stringify(encode(line))}\n`
  }
} as const

/** The form that `Accept` asks for. */
export const formOf = (accept: string | undefined): keyof typeof forms =>
  /\bapplication\/(?:x-)?(?:nd-?json|jsonl(?:ines)?)\b/i.test(accept ?? "") ? "ndjson" : "sse"

/** The answer. `run`: what is resumed, which the first event need not name. */
export const following = (
  events: Stream.Stream<FollowEvent, ApiError>,
  form: keyof typeof forms,
  run: string
): HttpServerResponse.HttpServerResponse => {
  const { alive, begin, type, write } = forms[form]
  const lines = events.pipe(
    Stream.mapAccum(() => run, linesOf),
    Stream.catchCause((cause) =>
      Cause.hasInterruptsOnly(cause) ? Stream.failCause(cause as Cause.Cause<never>) : lastWord(cause)
    ),
    Stream.map(write)
  )
  const signs = Stream.map(Stream.fromSchedule(Schedule.spaced(SIGN_OF_LIFE)), () => alive)
  // What comes first makes the headers go out, however long nothing happens.
  const body = Stream.concat(Stream.succeed(begin), Stream.merge(lines, signs, { haltStrategy: "left" }))
  return HttpServerResponse.stream(Stream.encodeText(body), {
    contentType: type,
    headers: { "cache-control": "no-store", "x-accel-buffering": "no" }
  })
}
