/**
 * Reads the headers of a tar archive as its bytes come by, and keeps none of its files. It sees what Go's archive/tar
 * sees, which is what umoci unpacks with: old tar, ustar, GNU's long names, pax. What it does not know it refuses.
 */

/** One member, as the archive calls it. `size` is of its content, in bytes. */
export interface TarEntry {
  readonly type: "file" | "hardlink" | "symlink" | "character" | "block" | "directory" | "fifo"
  readonly name: string
  /** Of links. */
  readonly target: string
  readonly size: number
}

/** The archive is not one, or one that is not taken. */
export class TarError extends Error {
  override readonly name = "TarError"
}

const BLOCK = 512

/** A pax header or a long name is some hundred bytes; this is Go's own bound. */
const MOST_META = 1024 * 1024

const types: Readonly<Record<string, TarEntry["type"]>> = {
  "0": "file",
  "\0": "file",
  "7": "file",
  "1": "hardlink",
  "2": "symlink",
  "3": "character",
  "4": "block",
  "5": "directory",
  "6": "fifo"
}

const text = (block: Buffer, from: number, length: number) => {
  const field = block.subarray(from, from + length)
  const end = field.indexOf(0)
  return field.toString("utf8", 0, end < 0 ? length : end)
}

/** Octal text, or with the top bit a big-endian number. */
const number = (block: Buffer, from: number, length: number): number => {
  const first = block[from] ?? 0
  if ((first & 0x80) === 0) {
    const digits = text(block, from, length).trim()
    if (!/^[0-7]*$/.test(digits)) throw new TarError(`"${digits}" is no number`)
    return digits === "" ? 0 : parseInt(digits, 8)
  }
  let value = BigInt(first & 0x7f)
  for (let i = from + 1; i < from + length; i++) value = (value << 8n) | BigInt(block[i] ?? 0)
  if ((first & 0x40) !== 0 || value > BigInt(Number.MAX_SAFE_INTEGER)) throw new TarError("a size out of range")
  return Number(value)
}

const checkSum = (block: Buffer) => {
  let sum = 0
  for (let i = 0; i < BLOCK; i++) sum += i >= 148 && i < 156 ? 32 : block[i] ?? 0
  const stated = /^ *([0-7]+)[ \0]*$/.exec(block.toString("latin1", 148, 156))?.[1]
  if (stated === undefined || parseInt(stated, 8) !== sum) {
    throw new TarError("a header's checksum is wrong: it is corrupt, or no tar archive")
  }
}

/** `length key=value\n` records. */
const paxRecords = (bytes: Buffer): Map<string, string> => {
  const records = new Map<string, string>()
  for (let at = 0; at < bytes.length;) {
    const space = bytes.indexOf(0x20, at)
    const length = space < 0 ? Number.NaN : Number(bytes.toString("latin1", at, space))
    if (
      !Number.isInteger(length) || length <= space - at + 1 || at + length > bytes.length ||
      bytes[at + length - 1] !== 10
    ) {
      throw new TarError("a pax header that does not parse")
    }
    const record = bytes.toString("utf8", space + 1, at + length - 1)
    const equals = record.indexOf("=")
    if (equals < 1) throw new TarError("a pax header that does not parse")
    records.set(record.slice(0, equals), record.slice(equals + 1))
    at += length
  }
  return records
}

/** Feed it with all bytes in order, then say `end`. It calls `entry` for each member; what that throws goes through. */
export class TarReader {
  readonly #entry: (entry: TarEntry) => void
  #held: Array<Buffer> = []
  #heldBytes = 0
  /** Bytes of content and padding still to come. */
  #skip = 0
  #wanted = BLOCK
  #meta: string | undefined
  #zeros = 0
  #over = false
  /** For the next member only: pax records, GNU's long name and target. */
  #next = new Map<string, string>()

  constructor(entry: (entry: TarEntry) => void) {
    this.#entry = entry
  }

  push(chunk: Buffer): void {
    let at = 0
    while (at < chunk.length && !this.#over) {
      if (this.#skip > 0) {
        const step = Math.min(this.#skip, chunk.length - at)
        this.#skip -= step
        at += step
        continue
      }
      const step = Math.min(this.#wanted - this.#heldBytes, chunk.length - at)
      this.#held.push(chunk.subarray(at, at + step))
      this.#heldBytes += step
      at += step
      if (this.#heldBytes < this.#wanted) continue
      const bytes = this.#held.length === 1 ? this.#held[0] ?? chunk : Buffer.concat(this.#held)
      this.#held = []
      this.#heldBytes = 0
      this.#wanted = BLOCK
      if (this.#meta === undefined) this.#header(bytes)
      else this.#payload(this.#meta, bytes)
    }
  }

  /** An archive may end without its two empty blocks, but not within a member. */
  end(): void {
    if (!this.#over && (this.#skip > 0 || this.#heldBytes > 0 || this.#meta !== undefined)) {
      throw new TarError("it ends in the middle of a file")
    }
  }

  #payload(kind: string, bytes: Buffer): void {
    const size = this.#metaSize
    const content = bytes.subarray(0, size)
    this.#meta = undefined
    const name = () => content.toString("utf8").replace(/\0.*$/s, "")
    if (kind === "L") this.#next.set("path", name())
    else if (kind === "K") this.#next.set("linkpath", name())
    else if (kind === "x") { for (const [key, value] of paxRecords(content)) this.#next.set(key, value) }
    else {for (const key of paxRecords(content).keys()) {
        if (key === "path" || key === "linkpath" || key === "size" || key.startsWith("GNU.sparse.")) {
          throw new TarError(`a global header that sets ${key}`)
        }
      }}
  }

  #metaSize = 0

  #header(block: Buffer): void {
    if (block.every((byte) => byte === 0)) {
      this.#zeros += 1
      if (this.#zeros === 2) this.#over = true
      return
    }
    if (this.#zeros > 0) throw new TarError("something follows its end")
    checkSum(block)
    const flag = String.fromCharCode(block[156] ?? 0)
    const size = number(block, 124, 12)
    if ("xgLK".includes(flag)) {
      if (size > MOST_META) throw new TarError("a header of more than 1 MiB")
      this.#metaSize = size
      if (size === 0) return
      this.#meta = flag
      this.#wanted = Math.ceil(size / BLOCK) * BLOCK
      return
    }
    this.#member(block, flag, size)
  }

  #member(block: Buffer, flag: string, size: number): void {
    const type = types[flag]
    if (type === undefined) throw new TarError(`a member of type "${flag}", which is not unpacked`)
    const pax = this.#next
    this.#next = new Map()
    for (const key of pax.keys()) if (key.startsWith("GNU.sparse.")) throw new TarError("a sparse file")
    const isPosix = block.toString("latin1", 257, 263) === "ustar\0"
    const prefix = isPosix ? text(block, 345, 155) : ""
    const short = text(block, 0, 100)
    const stated = pax.get("size")
    if (stated !== undefined && !/^\d{1,15}$/.test(stated)) throw new TarError("a size out of range")
    const content = type === "file" ? Number(stated ?? size) : 0
    this.#skip = Math.ceil(content / BLOCK) * BLOCK
    const name = pax.get("path") ?? (prefix === "" ? short : `${prefix}/${short}`)
    // Old archives have no type for directories: a file's name that ends with a slash is one.
    const isDirectory = type === "file" && name.endsWith("/")
    if (isDirectory && content > 0) throw new TarError(`a directory with content, ${JSON.stringify(name)}`)
    this.#entry({
      type: isDirectory ? "directory" : type,
      name,
      target: pax.get("linkpath") ?? text(block, 157, 100),
      size: content
    })
  }
}
