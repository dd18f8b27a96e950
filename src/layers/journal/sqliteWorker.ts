/**
 * The thread that keeps the journal's file: it waits for the disk, so that the event loop need not. An entry of its
 * own, and without Effect, because its start and its memory count.
 */
import { parentPort, workerData } from "node:worker_threads"
import { failureOf } from "./SqliteFailure.ts"
import { open, type SqliteFile } from "./SqliteFile.ts"
import type { FromThread, ThreadOptions, ToThread } from "./SqliteProtocol.ts"

const port = parentPort
if (port === null) throw new Error("sqliteWorker is started by Stoker as a thread, not by hand")
const say = (message: FromThread) => port.postMessage(message)

const openOrSay = (): SqliteFile | undefined => {
  try {
    return open(workerData as ThreadOptions)
  } catch (error) {
    say({ _tag: "Refused", failure: failureOf(error) })
    return undefined
  }
}

const file = openOrSay()
if (file !== undefined) {
  port.on("message", (message: ToThread) => {
    if (message._tag === "Batch") {
      say({ _tag: "Results", results: file.run(message.operations) })
      return
    }
    file.close()
    port.close()
  })
  say({ _tag: "Opened" })
}
