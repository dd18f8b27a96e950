/** Lines out of pieces of bytes, nothing lost: what never ends in a newline is a line too, what is too long several. */

const newline = 10

/** Cuts one stream. It keeps at most `mostBytes` of a line that has not ended. */
export class LineCutter {
  readonly #most: number
  #parts: Array<Uint8Array> = []
  #length = 0

  constructor(mostBytes: number) {
    this.#most = mostBytes
  }

  /** The lines that end in these bytes, without their newlines. */
  push(bytes: Uint8Array): Array<Uint8Array> {
    const lines: Array<Uint8Array> = []
    let from = 0
    while (from < bytes.length) {
      const at = bytes.indexOf(newline, from)
      const to = at === -1 ? bytes.length : at
      this.#take(bytes.subarray(from, to), lines)
      if (at !== -1) lines.push(this.#flush())
      from = to + 1
    }
    return lines
  }

  /** What is left: a line without an end. */
  end(): Array<Uint8Array> {
    return this.#length === 0 ? [] : [this.#flush()]
  }

  #take(part: Uint8Array, lines: Array<Uint8Array>) {
    let left = part
    while (this.#length + left.length > this.#most) {
      const fits = this.#most - this.#length
      this.#keep(left.subarray(0, fits))
      lines.push(this.#flush())
      left = left.subarray(fits)
    }
    this.#keep(left)
  }

  #keep(part: Uint8Array) {
    if (part.length === 0) return
    this.#parts.push(part)
    this.#length += part.length
  }

  #flush(): Uint8Array {
    const [only = new Uint8Array(), ...others] = this.#parts
    const line = others.length === 0 ? only : Buffer.concat(this.#parts)
    this.#parts = []
    this.#length = 0
    return line
  }
}
