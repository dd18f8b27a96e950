/** Gathers a stream's bytes into parts, and hashes them on the way. A part that was sent is filled again. */
import { createHash } from "node:crypto"

/** All but the last one are full. */
export interface Part {
  /** Of the gatherer, until it is given back. */
  readonly bytes: Buffer<ArrayBuffer>
  readonly md5: Buffer
}

/** What the first part begins with: most objects are small. */
const SMALL = 64 * 1024

export const makeGather = (partBytes: number) => {
  let buffer = Buffer.allocUnsafeSlow(0)
  let isFirst = true
  let spare: Buffer<ArrayBuffer> | undefined
  let length = 0
  let hash = createHash("md5")

  /** Room for one more byte at least. */
  const grow = () => {
    if (length < buffer.length || length === partBytes) return
    const room = isFirst ? Math.min(partBytes, Math.max(SMALL, buffer.length * 4)) : partBytes
    const larger = spare ?? Buffer.allocUnsafeSlow(room)
    spare = undefined
    buffer.copy(larger, 0, 0, length)
    buffer = larger
  }

  return {
    isFull: () => length === partBytes,
    isEmpty: () => length === 0,
    /** Takes what has room; gives the rest. */
    add: (bytes: Uint8Array): Uint8Array => {
      let rest = bytes
      while (rest.length > 0 && length < partBytes) {
        grow()
        const piece = rest.subarray(0, buffer.length - length)
        buffer.set(piece, length)
        hash.update(piece)
        length += piece.length
        rest = rest.subarray(piece.length)
      }
      return rest
    },
    /** What there is, as a part; the next one begins. */
    take: (): Part => {
      const part = { bytes: buffer.subarray(0, length), md5: hash.digest() }
      buffer = spare ?? Buffer.allocUnsafeSlow(0)
      isFirst = false
      spare = undefined
      length = 0
      hash = createHash("md5")
      return part
    },
    /** Its memory is of use again. */
    giveBack: ({ bytes }: Part) => {
      if (bytes.length === partBytes) spare = bytes
    }
  }
}
