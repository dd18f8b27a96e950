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
  /** The writing of the log that was shown: an attempt that was given back comes again under the same number. */
  let shown: string | undefined
  let begun = ""
  while (true) {
    const record = yield* journal.get(key)
    if (record === undefined) return undefined
    const { attempt, instance, settlement, state } = record
    const now = `${attempt} ${instance ?? ""}`
    if (now !== begun && state !== "queued") {
      begun = now
      yield* watch.began(attempt)
    }
    const kept = yield* Effect.option(log.read(key, { stream: "all", offset: 0, maxBytes: 1, waitMs: 0 }))
    if (kept._tag === "Some" && kept.value.run !== shown && state !== "queued") {
      const { end, run } = yield* follow((options) => log.read(key, options), { ...watch, wait: true })
      shown = run
      if (end?.complete === false && settlement === undefined) {
        yield* watch.note("stoker: its worker ended before it; it begins again with another one")
      }
      continue // the row may have changed meanwhile
    }
    if (settlement !== undefined) {
      if (shown === undefined && settlement.output.some(({ producedBytes }) => producedBytes > 0)) {
        yield* watch.note(
          `stoker: its output lies on the host of its worker${instance === undefined ? "" : ` ${instance}`}`
        )
      }
      return { ...record, settlement }
    }
    yield* Effect.sleep(POLL)
  }
})
