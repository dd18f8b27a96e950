/** Makes images byte by byte: layers as tar archives written by hand, OCI layouts and the archives of both kinds. */
import { createHash } from "node:crypto"
import { mkdirSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { gzipSync } from "node:zlib"

/** A member of a tar archive. What is left out is as for a file of root's. */
export interface Member {
  readonly name: string
  /** `0` file, `1` hard link, `2` link, `3` character device, `5` directory … */
  readonly type?: string
  readonly mode?: number
  readonly uid?: number
  readonly target?: string
  readonly content?: string | Buffer
  /** Of devices. */
  readonly device?: readonly [number, number]
  /** What the header says, if that is not the content's length. */
  readonly size?: number
  readonly pax?: Readonly<Record<string, string>>
}

const BLOCK = 512
const padded = (bytes: Buffer) => Buffer.concat([bytes, Buffer.alloc((BLOCK - (bytes.length % BLOCK)) % BLOCK)])
const octal = (value: number, digits: number) => `${value.toString(8).padStart(digits, "0")}\0`

const header = ({ content = "", device, mode, name, size, target = "", type = "0", uid = 0 }: Member): Buffer => {
  const block = Buffer.alloc(BLOCK)
  block.write(name, 0, 100)
  block.write(octal(mode ?? (type === "5" || type === "0" ? 0o755 : 0o644), 7), 100)
  block.write(octal(uid, 7), 108)
  block.write(octal(uid, 7), 116)
  block.write(octal(size ?? Buffer.byteLength(content), 11), 124)
  block.write(octal(0, 11), 136)
  block.write("        ", 148)
  block.write(type, 156)
  block.write(target, 157, 100)
  block.write("ustar\x0000", 257)
  if (device !== undefined) {
    block.write(octal(device[0], 7), 329)
    block.write(octal(device[1], 7), 337)
  }
  block.write(`${octal(block.reduce((sum, byte) => sum + byte, 0), 6)} `, 148)
  return block
}

const paxRecord = ([key, value]: readonly [string, string]) => {
  const rest = ` ${key}=${value}\n`
  let length = Buffer.byteLength(rest) + 1
  while (`${length}`.length + Buffer.byteLength(rest) !== length) length += 1
  return `${length}${rest}`
}

export const tar = (members: ReadonlyArray<Member>): Buffer =>
  Buffer.concat([
    ...members.flatMap((member) => {
      const content = Buffer.from(member.content ?? "")
      const pax = Object.entries(member.pax ?? {}).map(paxRecord).join("")
      return [
        ...(pax === "" ? [] : [header({ name: "pax", type: "x", content: pax }), padded(Buffer.from(pax))]),
        header(member),
        padded(content)
      ]
    }),
    Buffer.alloc(2 * BLOCK)
  ])

export const digest = (bytes: Buffer | string) => `sha256:${createHash("sha256").update(bytes).digest("hex")}`

/** What an image is made of, and what is to be wrong with it. */
export interface ImageOptions {
  /** Uncompressed. */
  readonly layers: ReadonlyArray<Buffer>
  readonly env?: ReadonlyArray<string>
  readonly entrypoint?: ReadonlyArray<string> | null
  readonly cmd?: ReadonlyArray<string>
  readonly architecture?: string
  /** The packed layer instead of what was packed: for damage. */
  readonly damage?: (packed: Buffer) => Buffer
  /** Wraps the manifest into an index for these machines. */
  readonly index?: ReadonlyArray<string>
  readonly layerType?: string
  /** Packs a layer; gzip by default. */
  readonly pack?: (plain: Buffer) => Buffer
}

export interface Blobs {
  /** Of the manifest, or of the index around it. */
  readonly digest: string
  readonly mediaType: string
  readonly bytes: Buffer
  /** By digest. */
  readonly blobs: ReadonlyMap<string, Buffer>
  readonly diffIds: ReadonlyArray<string>
  readonly config: Buffer
}

export const hostArchitecture = process.arch === "x64" ? "amd64" : process.arch

const MANIFEST = "application/vnd.oci.image.manifest.v1+json"
const INDEX = "application/vnd.oci.image.index.v1+json"

export const image = (options: ImageOptions): Blobs => {
  const { architecture = hostArchitecture, damage = (packed: Buffer) => packed, layers } = options
  const blobs = new Map<string, Buffer>()
  const put = (mediaType: string, bytes: Buffer, name = digest(bytes)) => {
    blobs.set(name, bytes)
    return { mediaType, digest: name, size: bytes.length }
  }
  const diffIds = layers.map(digest)
  const config = Buffer.from(JSON.stringify({
    os: "linux",
    architecture,
    config: {
      Env: options.env ?? [],
      User: "nobody",
      WorkingDir: "/nowhere",
      Entrypoint: options.entrypoint === undefined ? ["/no/such/entrypoint"] : options.entrypoint,
      ...(options.cmd === undefined ? {} : { Cmd: options.cmd })
    },
    rootfs: { type: "layers", diff_ids: diffIds }
  }))
  const packed = layers.map((plain) => (options.pack ?? gzipSync)(plain)).map((bytes) => ({
    name: digest(bytes),
    bytes: damage(bytes)
  }))
  const manifest = Buffer.from(JSON.stringify({
    schemaVersion: 2,
    mediaType: MANIFEST,
    config: put("application/vnd.oci.image.config.v1+json", config),
    layers: packed.map(({ bytes, name }) =>
      put(options.layerType ?? "application/vnd.oci.image.layer.v1.tar+gzip", bytes, name)
    )
  }))
  const top = put(MANIFEST, manifest)
  if (options.index === undefined) {
    return { digest: top.digest, mediaType: MANIFEST, bytes: manifest, blobs, diffIds, config }
  }
  const index = Buffer.from(JSON.stringify({
    schemaVersion: 2,
    mediaType: INDEX,
    manifests: options.index.map((machine) => ({ ...top, platform: { os: "linux", architecture: machine } }))
  }))
  return { digest: put(INDEX, index).digest, mediaType: INDEX, bytes: index, blobs, diffIds, config }
}

const layoutFiles = (made: Blobs): ReadonlyArray<readonly [string, Buffer]> => [
  ["oci-layout", Buffer.from(`{"imageLayoutVersion":"1.0.0"}`)],
  [
    "index.json",
    Buffer.from(JSON.stringify({
      schemaVersion: 2,
      manifests: [{
        mediaType: made.mediaType,
        digest: made.digest,
        size: made.bytes.length,
        annotations: { "org.opencontainers.image.ref.name": "latest" }
      }]
    }))
  ],
  ...[...made.blobs].map(([name, bytes]) => [`blobs/${name.replace(":", "/")}`, bytes] as const)
]

/** An OCI layout in a directory; its tag is `latest`. */
export const writeLayout = (path: string, made: Blobs) => {
  for (const [name, bytes] of layoutFiles(made)) {
    mkdirSync(dirname(join(path, name)), { recursive: true })
    writeFileSync(join(path, name), bytes)
  }
}

/** The same layout as one file. */
export const ociArchive = (made: Blobs): Buffer =>
  tar([
    { name: "blobs/", type: "5" },
    { name: "blobs/sha256/", type: "5" },
    ...layoutFiles(made).map(([name, content]) => ({ name, content, mode: 0o644 }))
  ])

/** As `docker save` writes it: layers unpacked. */
export const dockerArchive = (options: ImageOptions, name = "stoker.test/made:1"): Buffer => {
  const made = image(options)
  const config = `${digest(made.config).slice("sha256:".length)}.json`
  const layers = options.layers.map((bytes, number) => ({ name: `${number}/layer.tar`, content: bytes, mode: 0o644 }))
  return tar([
    { name: config, content: made.config, mode: 0o644 },
    ...layers,
    {
      name: "manifest.json",
      content: JSON.stringify([{ Config: config, RepoTags: [name], Layers: layers.map((layer) => layer.name) }]),
      mode: 0o644
    }
  ])
}
