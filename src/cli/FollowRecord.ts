/** Follows a job that another process runs: its log and its row, over as many attempts as it takes. */
import { Effect } from "effect"
import { Journal } from "../layers/journal/Journal.ts"
import { Log, type LogStream } from "../layers/log/Log.ts"
import type { JobKey } from "../schemas/Ids.ts"
import { follow } from "./Follow.ts"
import type { OutputClosed } from "./Output.ts"
import type { View } from "./View.ts"

/** How often the row is looked at while there is no output. */
const POLL = "100 millis"

export interface RecordWatch {
  readonly stream: LogStream
  readonly bytes: View["bytes"]
  readonly gap: View["gap"]
  readonly note: View["note"]
  /** An attempt has begun; 1 for the first. */
  readonly began: (attempt: number) => Effect.Effect<void, OutputClosed>
}

/** Returns with the settled record when all output was shown. */
export const followRecord = Effect.fn("FollowRecord.followRecord")(function*(key: JobKey, watch: RecordWatch) {
  const journal = yield* Journal
  const log = yield* Log
  /** The run whose output was shown: an attempt that was given back is not counted, and comes again elsewhere. */
  let shown = ""
  while (true) {
    const record = yield* journal.get(key)
    if (record === undefined) return undefined
    const { attempt, instance, settlement, state } = record
    const run = `${attempt} ${instance ?? ""}`
    if (run !== shown && state !== "queued") {
      yield* watch.began(attempt)
      const end = yield* follow((options) => log.read(key, options), { ...watch, wait: true }).pipe(
        Effect.catchTag("LogNotFound", () => Effect.undefined)
      )
      if (end !== undefined) shown = run
      if (end?.complete === false && settlement === undefined) {
        yield* watch.note("stoker: its worker ended before it; it begins again with another one")
      }
    }
    if (settlement !== undefined) return { ...record, settlement }
    yield* Effect.sleep(POLL)
  }
})
