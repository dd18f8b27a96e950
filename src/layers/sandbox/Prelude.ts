/** What a phase says before it waits for its input: until the mark it is nobody's output, but told if it ends early. */
import { Deferred, type Effect, Exit } from "effect"
import type { ExitFrame } from "../../guest/Protocol.ts"
import type { StreamName } from "../../schemas/Outcome.ts"

export interface Prelude {
  /** What of these bytes is output already. */
  readonly hear: (stream: StreamName, bytes: Uint8Array) => Uint8Array
  readonly end: (end: ExitFrame["end"]) => void
  readonly ready: Effect.Effect<void>
  /** Completes with the reason when the phase ends. */
  readonly ended: Effect.Effect<string>
}

/** Of what it says on stderr the last bytes are kept, for the reason. */
const KEPT = 2048

const none = new Uint8Array()

export const make = (mark: string): Prelude => {
  const wanted = Buffer.from(mark)
  const ready = Deferred.makeUnsafe<void>()
  const ended = Deferred.makeUnsafe<string>()
  let isReady = false
  /** The end of stdout so far: the mark may come in pieces. */
  let tail: Buffer = Buffer.alloc(0)
  let words: Buffer = Buffer.alloc(0)
  return {
    hear: (stream, bytes) => {
      if (isReady) return bytes
      if (stream === "stderr") {
        words = Buffer.concat([words, bytes]).subarray(-KEPT)
        return none
      }
      const all = Buffer.concat([tail, bytes])
      const at = all.indexOf(wanted)
      if (at < 0) {
        tail = all.subarray(Math.max(0, all.length - wanted.length + 1))
        return none
      }
      isReady = true
      Deferred.doneUnsafe(ready, Exit.void)
      return all.subarray(at + wanted.length)
    },
    end: (end) => {
      const how = end.kind === "exited" ? `code ${end.code}` : `signal ${end.signal}`
      const said = words.toString().trim()
      const reason = `it ended with ${how} while it waited for its input${said === "" ? "" : `: ${said}`}`
      Deferred.doneUnsafe(ended, Exit.succeed(reason))
    },
    ready: Deferred.await(ready),
    ended: Deferred.await(ended)
  }
}
