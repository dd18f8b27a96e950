/** The newest bytes of a log by reference, so that a thousand who follow at its edge read no file and copy nothing. */
import type { StreamName } from "../../schemas/Outcome.ts"
import type { LogStream } from "./Log.ts"
import type { Place, Run } from "./LogRun.ts"

/** Held at most, and only while somebody has read since so many bytes. */
const mostBytes = 1024 * 1024
const mostRuns = 4096
/** Smaller chunks are copied: they would keep all of the buffer alive that they came in. */
const copiedBelow = 1024

const offsetIn = (run: Run, stream: LogStream) => stream === "all" ? run.all : run.at

export class LogRecent {
  private runs: Array<Run> = []
  /** Those before it were dropped. */
  private first = 0
  private held = 0
  private unread = Number.POSITIVE_INFINITY

  /** `place` is the one before the chunk. */
  push(stream: StreamName, place: Place, chunk: Uint8Array): void {
    this.unread += chunk.length
    if (this.unread > mostBytes) return this.clear()
    const bytes = chunk.length < copiedBelow ? Buffer.from(chunk) : chunk
    this.runs.push({ stream, at: place[stream], all: place.stdout + place.stderr, bytes })
    this.held += bytes.length
    while (this.held > mostBytes || this.runs.length - this.first > mostRuns) {
      this.held -= this.runs[this.first]?.bytes.length ?? 0
      this.first += 1
    }
    if (this.first <= mostRuns) return
    this.runs = this.runs.slice(this.first)
    this.first = 0
  }

  clear(): void {
    this.runs = []
    this.first = 0
    this.held = 0
  }

  /** All from the offset on, up to `maxBytes` and perhaps more; undefined if what is held begins after it. */
  from(stream: LogStream, offset: number, maxBytes: number): Array<Run> | undefined {
    this.unread = 0
    let at = this.runs.length - 1
    const found: Array<Run> = []
    // From the newest backwards: those who follow are near the end.
    for (; at >= this.first; at--) {
      const run = this.runs[at]
      if (run === undefined || (stream !== "all" && run.stream !== stream)) continue
      found.push(run)
      if (offsetIn(run, stream) <= offset) return cut(found.toReversed(), stream, offset, maxBytes)
    }
    return undefined
  }
}

const cut = (runs: Array<Run>, stream: LogStream, offset: number, maxBytes: number): Array<Run> => {
  const wanted: Array<Run> = []
  let budget = Math.max(1, maxBytes)
  for (const run of runs) {
    if (budget <= 0) break
    const skipped = Math.max(0, offset - offsetIn(run, stream))
    const bytes = run.bytes.subarray(skipped)
    if (bytes.length === 0) continue
    wanted.push({ stream: run.stream, at: run.at + skipped, all: run.all + skipped, bytes })
    budget -= bytes.length
  }
  return wanted
}
