/** The last bytes of one stream, in memory: what is over the capacity pushes out the oldest. */
import type { StreamName } from "../../schemas/Outcome.ts"
import type { LogStream } from "./Log.ts"
import type { Run } from "./LogRun.ts"

const smallest = 4096

/**
 * Bytes lie in a buffer that grows to `capacity` and then goes round. Beside it, where the runs of arrival begin: 16
 * bytes of memory for each, so a program that writes single bytes to both streams in turn costs 17 times its output,
 * and everybody else next to nothing.
 */
export class LogRing {
  readonly stream: StreamName
  readonly capacity: number
  /** Offset of the oldest byte kept, and the one behind the newest. */
  start: number
  end: number
  private buffer = new Uint8Array(0)
  /** Of the byte at `buffer[0]`, modulo the buffer's length. */
  private origin = 0
  /** Offsets where runs begin: in the stream, and in both streams' order. Those before `first` are pushed out. */
  private runAt: Array<number> = []
  private runAll: Array<number> = []
  private first = 0

  /** `from` is the stream's offset of the first byte that will come. */
  constructor(stream: StreamName, capacity: number, from: number) {
    this.stream = stream
    this.capacity = capacity
    this.start = from
    this.end = from
  }

  /** Takes a copy. `all` is the offset of the first byte in both streams' order. */
  push(bytes: Uint8Array, all: number): void {
    const over = bytes.length - this.capacity
    const kept = over > 0 ? bytes.subarray(over) : bytes
    const at = this.end
    this.end += bytes.length
    const last = this.runAt.length - 1
    const goesOn = last >= this.first && (this.runAll[last] ?? 0) - (this.runAt[last] ?? 0) === all - at
    if (!goesOn) {
      this.runAt.push(at)
      this.runAll.push(all)
    }
    this.start = Math.max(this.start, this.end - this.capacity)
    this.forgetRuns()
    if (kept.length === 0) return
    this.makeRoom(kept.length)
    const from = this.indexOf(this.end - kept.length)
    const untilWrap = Math.min(kept.length, this.buffer.length - from)
    this.buffer.set(kept.subarray(0, untilWrap), from)
    this.buffer.set(kept.subarray(untilWrap), 0)
  }

  /**
   * Kept bytes from `offset` on in `stream`'s offsets, up to `maxBytes`. They share the ring's memory: whoever keeps
   * them beyond the next push must copy them.
   */
  runs(stream: LogStream, offset: number, maxBytes: number): Array<Run> {
    const found: Array<Run> = []
    let budget = maxBytes
    for (let index = this.find(stream, offset); index < this.runAt.length && budget > 0; index++) {
      const begin = this.runAt[index] ?? 0
      const shift = (this.runAll[index] ?? 0) - begin
      const to = this.runAt[index + 1] ?? this.end
      let at = Math.max(begin, this.start, stream === "all" ? offset - shift : offset)
      while (at < to && budget > 0) {
        const from = this.indexOf(at)
        const length = Math.min(to - at, budget, this.buffer.length - from)
        const bytes = this.buffer.subarray(from, from + length)
        found.push({ stream: this.stream, at, all: at + shift, bytes, isShared: true })
        at += length
        budget -= length
      }
    }
    return found
  }

  /** The last run that begins at or before `offset`, or the first there is. */
  private find(stream: LogStream, offset: number): number {
    const starts = stream === "all" ? this.runAll : this.runAt
    let low = this.first
    let high = starts.length - 1
    while (low < high) {
      const middle = (low + high + 1) >>> 1
      if ((starts[middle] ?? 0) <= offset) low = middle
      else high = middle - 1
    }
    return low
  }

  private indexOf(offset: number): number {
    return (offset - this.origin) % this.buffer.length
  }

  private forgetRuns(): void {
    while (this.first + 1 < this.runAt.length && (this.runAt[this.first + 1] ?? 0) <= this.start) this.first++
    if (this.first > 1024 && this.first * 2 > this.runAt.length) {
      this.runAt = this.runAt.slice(this.first)
      this.runAll = this.runAll.slice(this.first)
      this.first = 0
    }
  }

  /** Grows by doubling while nothing has been pushed out; `incoming` bytes, already counted in `end`, must fit. */
  private makeRoom(incoming: number): void {
    const needed = Math.min(this.capacity, this.end - this.start)
    if (needed <= this.buffer.length) return
    const grown = new Uint8Array(Math.min(this.capacity, Math.max(smallest, needed, this.buffer.length * 2)))
    const kept = Math.max(0, this.end - incoming - this.start)
    for (let moved = 0; moved < kept;) {
      const from = this.indexOf(this.start + moved)
      const length = Math.min(kept - moved, this.buffer.length - from)
      grown.set(this.buffer.subarray(from, from + length), moved)
      moved += length
    }
    this.buffer = grown
    this.origin = this.start
  }
}
