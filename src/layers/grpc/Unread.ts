/**
 * Answers that are on their way. A caller who asks and does not read makes the worker hold what it was answered, so there is
 * a bound for each; streams have their own, and go on when they are read.
 */

/** Of one caller, over all connections; one answer may always be there. Bytes. */
const MOST = 64 * 1024 * 1024

/** Of one server. */
export class Unread {
  readonly #bytes = new Map<string, number>()

  /** Whether there is room for an answer. If so it counts until `read`. */
  holds(caller: string, bytes: number): boolean {
    const held = this.#bytes.get(caller) ?? 0
    if (held > 0 && held + bytes > MOST) return false
    this.#bytes.set(caller, held + bytes)
    return true
  }

  /** It was read, or nobody waits for it any more. */
  read(caller: string, bytes: number): void {
    const left = (this.#bytes.get(caller) ?? 0) - bytes
    if (left <= 0) this.#bytes.delete(caller)
    else this.#bytes.set(caller, left)
  }
}
