/**
 * A container's output, each byte once, over any number of connections. The API can begin again at a whole second only;
 * what came already is left out by the time of its line, and by count among lines of the same time. Kubernetes keeps
 * both streams in one.
 */
import { Effect, Stream } from "effect"
import type { Cluster, KubernetesError, LogRequest } from "./Kubernetes.ts"

const NEWLINE = 10
const SPACE = 32
/** A time with nanoseconds and an offset has 35 bytes at most. */
const LONGEST_TIME = 40

/** Times of one zone compare as text once their fractions are equally long. */
const comparable = (time: string): string => {
  const [, whole = time, fraction = "", zone = ""] = /^([^.Z+]+?)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)?$/.exec(time) ?? []
  const millis = Date.parse(whole + (zone === "" ? "Z" : zone))
  return Number.isNaN(millis) ? time : new Date(millis).toISOString().slice(0, 19) + `.${fraction.padEnd(9, "0")}`
}

/** Takes the times out of lines, and what came before. One for one container, over all its connections. */
export class LogLines {
  /** Of the last line that came: its time, how many of that time came whole, and what came of the one under way. */
  #time = ""
  #whole = 0
  #part = 0

  // Of this connection.
  #head = ""
  #isHead = true
  /** Lines of the last time that are still to be left out, and bytes of the one after them. */
  #skipLines = 0
  #skipBytes = 0
  #isSkipped = false

  /** Where the next connection has to begin. */
  get since(): string | undefined {
    return this.#time === "" ? undefined : `${this.#time.slice(0, 19)}Z`
  }

  /** Another connection begins, with `since`. */
  reopen(): void {
    this.#head = ""
    this.#isHead = true
    this.#skipLines = this.#whole
    this.#skipBytes = this.#part
    this.#isSkipped = false
  }

  /** What is new of some bytes, in an array of its own. */
  take(bytes: Uint8Array): Uint8Array {
    const fresh = Buffer.allocUnsafe(bytes.length)
    let length = 0
    let at = 0
    while (at < bytes.length) {
      if (this.#isHead) {
        const space = bytes.indexOf(SPACE, at)
        const end = space < 0 ? bytes.length : space
        this.#head += Buffer.from(bytes.buffer, bytes.byteOffset + at, end - at).toString("latin1")
        at = end
        // No server sends that; it is let through as it is.
        if (this.#head.length > LONGEST_TIME) this.#begin("")
        else if (space >= 0) {
          this.#begin(comparable(this.#head))
          at += 1
        }
        continue
      }
      const newline = bytes.indexOf(NEWLINE, at)
      const end = newline < 0 ? bytes.length : newline + 1
      if (!this.#isSkipped) {
        const skipped = Math.min(this.#skipBytes, end - at)
        this.#skipBytes -= skipped
        fresh.set(bytes.subarray(at + skipped, end), length)
        length += end - at - skipped
        this.#part += end - at - skipped
      }
      at = end
      if (newline < 0) continue
      if (!this.#isSkipped) {
        this.#whole += 1
        this.#part = 0
        this.#skipBytes = 0
      }
      this.#isHead = true
      this.#head = ""
    }
    return fresh.subarray(0, length)
  }

  /** A line of that time begins. */
  #begin(time: string): void {
    this.#isHead = false
    if (time < this.#time) {
      this.#isSkipped = true
      return
    }
    if (time > this.#time) {
      this.#time = time
      this.#whole = 0
      this.#part = 0
      this.#skipLines = 0
      this.#skipBytes = 0
    }
    this.#isSkipped = this.#skipLines > 0
    if (this.#isSkipped) this.#skipLines -= 1
  }
}

/** One connection's worth of what is new. */
export const read = (
  cluster: Cluster,
  lines: LogLines,
  request: Omit<LogRequest, "since">
): Stream.Stream<Uint8Array, KubernetesError> =>
  Stream.suspend(() => {
    const { since } = lines
    lines.reopen()
    return cluster.log({ ...request, ...(since === undefined ? {} : { since }) }).pipe(
      Stream.map((bytes) => lines.take(bytes)),
      Stream.filter(({ length }) => length > 0)
    )
  })

/** Pauses between connections that brought nothing: from a tenth of a second to five. */
export const pauseAfter = (failures: number) => Effect.sleep(Math.min(5000, 100 * 2 ** failures))
