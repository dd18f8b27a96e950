/**
 * Looks through an image's layers before anything of them is unpacked: whether they are what their digests say, whether
 * they fit, and whether any name in them leads out. The unpacking itself is somebody else's and confined: this makes sure
 * that it ends, and that what is wrong is told in words.
 */
import { createHash } from "node:crypto"
import { createReadStream } from "node:fs"
import { Transform } from "node:stream"
import { pipeline } from "node:stream/promises"
import { createGunzip, createZstdDecompress } from "node:zlib"
import { type TarEntry, TarError, TarReader } from "./Tar.ts"

/** What one image may be, unpacked and all layers counted, also what later layers remove. */
export interface ImageLimits {
  readonly bytes: number
  /** Files, directories and links. */
  readonly inodes: number
  readonly layers: number
}

/** Names of directories are remembered to count each once: so many characters of them. */
const MOST_NAMES = 64 * 1024 * 1024

/** Refused, with the reason. */
export class ImageRefused extends Error {
  override readonly name = "ImageRefused"
}

/** What a member takes at least. */
const FLOOR = 512

const leadsOut = (path: string) => path.split("/").includes("..")

const clean = (path: string) => path.split("/").filter((part) => part !== "" && part !== ".").join("/")

/** Counts members of all layers of one image, and refuses the first that is too many or goes where it must not. */
export class Tally {
  readonly #limits: ImageLimits
  readonly #directories = new Set<string>()
  #names = 0
  bytes = 0
  inodes = 0

  constructor(limits: ImageLimits) {
    this.#limits = limits
  }

  add(entry: TarEntry): void {
    const name = JSON.stringify(entry.name.slice(0, 200))
    if (entry.name.length > 4096 || entry.name.includes("\0")) throw new ImageRefused(`it has a file named ${name}`)
    if (leadsOut(entry.name)) throw new ImageRefused(`it has a file named ${name}, which leads out of the image`)
    if (entry.type === "hardlink" && leadsOut(entry.target)) {
      throw new ImageRefused(`${name} is a hard link to ${JSON.stringify(entry.target)}, which leads out of the image`)
    }
    const path = clean(entry.name)
    if (path === "") {
      if (entry.type !== "directory") throw new ImageRefused("its root is not a directory")
      return
    }
    if (entry.type === "directory") this.#directory(path)
    else {
      this.#parents(path)
      this.#inode()
    }
    this.bytes += Math.max(entry.size, FLOOR)
    if (this.bytes > this.#limits.bytes) {
      throw new ImageRefused(`unpacked it is larger than ${this.#limits.bytes} bytes, the most that is allowed`)
    }
  }

  #inode(): void {
    this.inodes += 1
    if (this.inodes > this.#limits.inodes) {
      throw new ImageRefused(`it has more than ${this.#limits.inodes} files, the most that are allowed`)
    }
  }

  #directory(path: string): void {
    if (this.#directories.has(path)) return
    this.#parents(path)
    this.#names += path.length
    if (this.#names > MOST_NAMES) throw new ImageRefused("the names of its directories are too long")
    this.#directories.add(path)
    this.#inode()
  }

  /** Those a name implies are made, too. */
  #parents(path: string): void {
    const slash = path.lastIndexOf("/")
    if (slash <= 0 || this.#directories.has(path.slice(0, slash))) return
    const parts = path.slice(0, slash).split("/")
    for (let depth = 1; depth <= parts.length; depth++) {
      const parent = parts.slice(0, depth).join("/")
      if (this.#directories.has(parent)) continue
      this.#names += parent.length
      if (this.#names > MOST_NAMES) throw new ImageRefused("the names of its directories are too long")
      this.#directories.add(parent)
      this.#inode()
    }
  }
}

export type Compression = "none" | "gzip" | "zstd"

export interface Layer {
  readonly path: string
  readonly compression: Compression
  /** `sha256:…` of the blob. */
  readonly digest: string
  /** Of what it is uncompressed, as the image's configuration says. */
  readonly diffId: string
}

const decoder = (compression: Compression): Transform => {
  switch (compression) {
    case "gzip":
      return createGunzip()
    case "zstd":
      return createZstdDecompress()
    case "none":
      return new Transform({ transform: (chunk, _, next) => next(null, chunk) })
  }
}

/** A broken stream is the image's fault, too. */
const asRefused = (layer: Layer, cause: unknown): unknown => {
  if (cause instanceof ImageRefused) return cause
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : ""
  if (cause instanceof TarError) return new ImageRefused(`layer ${layer.digest} is not taken: ${cause.message}`)
  return /^(Z_|ZSTD_)/.test(code)
    ? new ImageRefused(`layer ${layer.digest} does not uncompress: it is corrupt or ends too early (${String(cause)})`)
    : cause
}

/**
 * Reads a layer to its end, at most as many bytes as the tally still lets it have. Rejects with `ImageRefused`, or with
 * what the file system said.
 */
export const scanLayer = async (
  layer: Layer,
  tally: Tally,
  limits: ImageLimits,
  signal: AbortSignal
): Promise<void> => {
  const packed = createHash("sha256")
  const plain = createHash("sha256")
  const tar = new TarReader((entry) => tally.add(entry))
  // Padding and headers are no content, but take time: a layer of nothing else must end as well.
  const most = 2 * limits.bytes + 4096 * limits.inodes
  let seen = 0
  try {
    await pipeline(
      createReadStream(layer.path, { highWaterMark: 256 * 1024 }),
      async function*(source: AsyncIterable<Buffer>) {
        for await (const chunk of source) {
          packed.update(chunk)
          yield chunk
        }
      },
      decoder(layer.compression),
      async function(source: AsyncIterable<Buffer>) {
        for await (const chunk of source) {
          seen += chunk.length
          if (seen > most) throw new ImageRefused(`layer ${layer.digest} is larger than anything allowed in it`)
          plain.update(chunk)
          tar.push(chunk)
        }
      },
      { signal }
    )
    tar.end()
  } catch (cause) {
    throw asRefused(layer, cause)
  }
  const found = `sha256:${packed.digest("hex")}`
  if (found !== layer.digest) throw new ImageRefused(`layer ${layer.digest} has the digest ${found}`)
  const content = `sha256:${plain.digest("hex")}`
  if (content !== layer.diffId) {
    throw new ImageRefused(`layer ${layer.digest} holds ${content}, and the image says ${layer.diffId}`)
  }
}
