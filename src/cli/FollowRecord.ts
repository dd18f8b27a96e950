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
  /** The attempt whose output was shown. */
  let shown = 0
  while (true) {
    const record = yield* journal.get(key)
    if (record === undefined) return undefined
    const { attempt, settlement, state } = record
    if (attempt > shown && state !== "queued") {
      yield* watch.began(attempt)
      const end = yield* follow((options) => log.read(key, options), { ...watch, wait: true }).pipe(
        Effect.catchTag("LogNotFound", () => Effect.undefined)
      )
      if (end !== undefined) shown = attempt
      if (end?.complete === false && settlement === undefined) {
        yield* watch.note("stoker: its worker died; it may begin again with another one")
      }
    }
    if (settlement !== undefined) return { ...record, settlement }
    yield* Effect.sleep(POLL)
  }
})
