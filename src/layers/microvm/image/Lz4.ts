/** The legacy frame of LZ4, in which Debian's kernels are packed: a magic number, then blocks with their lengths. */

export const LZ4_MAGIC = 0x184c2102

/** So much a block holds at most, by the format. */
const BLOCK_BYTES = 8 * 1024 * 1024

class Corrupt extends Error {}

/** One block into `target` from `at` on; gives where it ended. */
const block = (source: Buffer, target: Buffer, at: number): number => {
  let from = 0
  let to = at
  const more = (length: number) => {
    let sum = length
    if (length !== 15) return sum
    for (let byte = 255; byte === 255;) {
      byte = source[from++] ?? NaN
      if (Number.isNaN(byte)) throw new Corrupt("a length goes beyond its block")
      sum += byte
    }
    return sum
  }
  while (from < source.length) {
    const token = source[from++] ?? 0
    const literals = more(token >> 4)
    if (from + literals > source.length || to + literals > target.length) {
      throw new Corrupt("literals go beyond their block")
    }
    source.copy(target, to, from, from + literals)
    from += literals
    to += literals
    if (from === source.length) break
    if (from + 2 > source.length) throw new Corrupt("an offset is cut off")
    const offset = source.readUInt16LE(from)
    from += 2
    const length = more(token & 15) + 4
    if (offset === 0 || to - offset < at || to + length > target.length) {
      throw new Corrupt("a match leads out of its block")
    }
    // Where they overlap, what was just written is read again.
    if (offset >= length) target.copyWithin(to, to - offset, to - offset + length)
    else for (let step = 0; step < length; step += 1) target[to + step] = target[to + step - offset] ?? 0
    to += length
  }
  return to
}

/** What is packed in `frame`, which must come to just `bytes`. Throws for anything else. */
export const unpackLz4 = (frame: Buffer, bytes: number): Buffer => {
  const target = Buffer.alloc(bytes)
  let [from, to] = [0, 0]
  while (from + 4 <= frame.length) {
    const length = frame.readUInt32LE(from)
    from += 4
    if (length === LZ4_MAGIC) continue
    if (length === 0 || from + length > frame.length) throw new Corrupt("a block is cut off")
    to = block(frame.subarray(from, from + length), target.subarray(0, Math.min(to + BLOCK_BYTES, bytes)), to)
    from += length
  }
  if (to !== bytes) throw new Corrupt(`it holds ${to} bytes instead of ${bytes}`)
  return target
}
