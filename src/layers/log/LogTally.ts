/** Counts what a job writes and decides what is kept: the head as it comes, then the last bytes of each stream. */
import { crc32 } from "node:zlib"
import type { StreamSummary } from "../../schemas/JobEvent.ts"
import type { StreamName } from "../../schemas/Outcome.ts"
import type { LogStream } from "./Log.ts"
import { LogRing } from "./LogRing.ts"
import type { Extent, Lost, Place, Run } from "./LogRun.ts"

/** More is not held in memory for one stream: above 64 MiB of kept output the head gets the larger share. */
const mostTailBytes = 32 * 1024 * 1024

export class LogTally {
  readonly headBytes: number
  private readonly rings: Record<StreamName, LogRing>
  private readonly crcs: Record<StreamName, number> = { stdout: 0, stderr: 0 }
  private readonly counts: Record<StreamName, number> = { stdout: 0, stderr: 0 }

  /** `keepBytes` for each stream. */
  constructor(keepBytes: number) {
    const tailBytes = Math.min(mostTailBytes, Math.floor(keepBytes / 2))
    this.headBytes = keepBytes - tailBytes
    this.rings = {
      stdout: new LogRing("stdout", tailBytes, this.headBytes),
      stderr: new LogRing("stderr", tailBytes, this.headBytes)
    }
  }

  get produced(): Place {
    return { stdout: this.counts.stdout, stderr: this.counts.stderr }
  }

  producedBy(stream: StreamName): number {
    return this.counts[stream]
  }

  /** So many bytes of the stream belong to its head. */
  headOf(stream: StreamName): number {
    return Math.min(this.counts[stream], this.headBytes)
  }

  /** Keeps what belongs to the tail, and gives back what belongs to the head, for the caller to keep. */
  accept(stream: StreamName, bytes: Uint8Array): Uint8Array {
    const { counts } = this
    const room = Math.max(0, this.headBytes - counts[stream])
    const head = bytes.length <= room ? bytes : bytes.subarray(0, room)
    counts[stream] += head.length
    if (head.length > 0) this.crcs[stream] = crc32(head, this.crcs[stream])
    if (head.length < bytes.length) {
      this.rings[stream].push(bytes.subarray(head.length), counts.stdout + counts.stderr)
      counts[stream] += bytes.length - head.length
    }
    return head
  }

  /** Of the tails, unsorted, and sharing their memory: good until the next `accept`. */
  tailRuns(stream: LogStream, offset: number, maxBytes: number): Array<Run> {
    return stream === "all"
      ? [...this.rings.stdout.runs(stream, offset, maxBytes), ...this.rings.stderr.runs(stream, offset, maxBytes)]
      : this.rings[stream].runs(stream, offset, maxBytes)
  }

  get hasTail(): boolean {
    return this.counts.stdout > this.headBytes || this.counts.stderr > this.headBytes
  }

  get lost(): Extent["lost"] {
    const { stderr, stdout } = this.rings
    return {
      stdout: { from: this.headBytes, to: stdout.start },
      stderr: { from: this.headBytes, to: stderr.start }
    }
  }

  /** Whether all is kept that was produced from the offset on. In both streams' order: whether all is kept at all. */
  keepsFrom(stream: LogStream, offset: number): boolean {
    const { stderr, stdout } = this.lost
    const isWhole = (lost: Lost) => lost.from === lost.to
    if (stream === "all") return isWhole(stdout) && isWhole(stderr)
    return isWhole(this.lost[stream]) || offset >= this.lost[stream].to
  }

  summaries(): ReadonlyArray<StreamSummary> {
    return [this.summaryOf("stdout"), this.summaryOf("stderr")]
  }

  private summaryOf(stream: StreamName): StreamSummary {
    const ring = this.rings[stream]
    let crc = this.crcs[stream]
    for (const run of ring.runs(stream, 0, Number.MAX_SAFE_INTEGER)) crc = crc32(run.bytes, crc)
    return {
      stream,
      producedBytes: this.counts[stream],
      droppedBytes: ring.start - this.headBytes,
      crc32: crc
    }
  }

  /** Frees the tails' memory: they are in the file. */
  forgetTails(): void {
    const { headBytes, rings } = this
    rings.stdout = new LogRing("stdout", 0, headBytes)
    rings.stderr = new LogRing("stderr", 0, headBytes)
  }
}
