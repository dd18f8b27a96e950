/** Removes the logs of forgotten jobs. */
import { Effect } from "effect"
import * as Prune from "../host/Prune.ts"
import type { Log } from "./Log.ts"
import { decodePreamble, mostHeadBytes } from "./LogFormat.ts"
import { failed } from "./LogHandle.ts"

const belongsTo = (head: Buffer): Prune.Belonging => {
  const read = decodePreamble(head)
  // Short: nothing was ever written there.
  return read._tag === "Whole"
    ? { _tag: "Job", key: read.preamble.key }
    : { _tag: read._tag === "Short" ? "Nobody" : "Unknown" }
}

/** `isLive` says whether the log of that key (`keyText`) is being written in this process. */
export const make = Effect.fnUntraced(function*(folder: string, isLive: (key: string) => boolean) {
  const prune = yield* Prune.make({
    folder,
    belongsTo,
    headBytes: mostHeadBytes,
    isLive,
    failed: (path, cause) => failed("remove", path, cause)
  })
  const named: Log["Service"]["prune"] = Effect.fn("Log.prune")((idleMs, forgotten) => prune(idleMs, forgotten))
  return named
})
