/** `stoker status`, `list` and `logs`: what the journal and the logs of a state directory say. */
import { Effect, Layer, Option, type Redacted } from "effect"
import { Journal } from "../layers/journal/Journal.ts"
import { Log, type LogStream } from "../layers/log/Log.ts"
import * as LogFiles from "../layers/log/LogFiles.ts"
import { keyText } from "../schemas/Ids.ts"
import { type JobState, keyOf } from "../schemas/Job.ts"
import type { StreamName } from "../schemas/Outcome.ts"
import { layerHost } from "../wiring.ts"
import { usageFailure } from "./CliFailure.ts"
import type { JobName } from "./Flags.ts"
import { follow } from "./Follow.ts"
import { followRecord } from "./FollowRecord.ts"
import { jobsNow } from "./LiveWorkers.ts"
import * as Loggers from "./Loggers.ts"
import { print, say, write } from "./Output.ts"
import * as Records from "./Records.ts"
import * as Signals from "./Signals.ts"
import { existingState, stateDirectory } from "./StateDirectory.ts"

interface Where {
  readonly state: Option.Option<string>
  readonly journal: Option.Option<Redacted.Redacted<string>>
}

interface Common extends Where {
  readonly json: boolean
}

/** Of a shared journal nothing need be here. */
const directoryOf = ({ journal, state }: Where) => Option.isSome(journal) ? stateDirectory(state) : existingState(state)

const logged = Loggers.layer({ format: "auto", usual: "Error" })

export const showStatus = Effect.fn("ReadCommands.showStatus")(
  function*({ id, json, ...where }: Common & { readonly id: JobName }) {
    const directory = yield* directoryOf(where)
    const record = yield* Records.find(id).pipe(Effect.provide(Records.layerJournal(where.journal, directory)))
    // A job of another host's worker has nobody here who could tell.
    const now = record.state === "running"
      ? (yield* jobsNow.pipe(Effect.provide(layerHost(directory)))).find(({ key }) =>
        keyText(key) === Records.nameOf(record)
      )
      : undefined
    yield* print(json ? JSON.stringify(Records.toJson(record, now)) : Records.details(record, now))
  },
  Effect.provide(logged)
)

export const showList = Effect.fn("ReadCommands.showList")(function*(
  { json, limit, only, ...where }: Common & { readonly only: Option.Option<JobState>; readonly limit: number }
) {
  const directory = yield* directoryOf(where)
  const records = yield* Effect.flatMap(
    Journal,
    ({ list }) => list({ limit, ...(Option.isSome(only) ? { state: only.value } : {}) })
  ).pipe(Effect.provide(Records.layerJournal(where.journal, directory)))
  if (json) return yield* print(JSON.stringify(records.map((record) => Records.toJson(record))))
  yield* print(Records.overview(records))
  if (records.length === limit) yield* say(`stoker: the newest ${limit}; --limit shows more`)
}, Effect.provide(logged))

const gapNote = (stream: StreamName, count: number) => say(`stoker: ${count} bytes of ${stream} were not kept`)

export const showLogs = Effect.fn("ReadCommands.showLogs")(function*(
  options: Where & {
    readonly id: JobName
    readonly follow: boolean
    readonly stream: LogStream
  }
) {
  const directory = yield* directoryOf(options)
  // One stream is what was asked for; both go where they came from.
  const bytes = (stream: StreamName, chunk: Uint8Array) => write(options.stream === "all" ? stream : "stdout", chunk)
  const watch = { stream: options.stream, bytes, gap: gapNote, note: say, began: () => Effect.void }
  yield* Effect.gen(function*() {
    const record = yield* Records.find(options.id)
    const key = keyOf(record.request.job)
    if (options.follow) return void (yield* followRecord(key, watch))
    const log = yield* Log
    return void (yield* follow((read) => log.read(key, read), { ...watch, wait: false }).pipe(
      Effect.catchTag("LogNotFound", () =>
        Effect.fail(usageFailure(
          `job ${key.id} (${record.state}) has no output here`,
          Option.isSome(options.journal) && record.instance !== undefined
            ? `It lies on the host of worker ${record.instance}: ask there, with that worker's --state.`
            : record.state === "ended"
            ? "`stoker status` says how it ended."
            : "Follow it with -f until it has some."
        )))
    ))
  }).pipe(
    Effect.provide(
      Layer.mergeAll(
        Records.layerJournal(options.journal, directory),
        LogFiles.layer.pipe(Layer.provide(layerHost(directory)))
      )
    ),
    Signals.interruptible
  )
}, Effect.provide(logged))
