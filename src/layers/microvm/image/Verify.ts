/** Whether an image is whole and for this machine. What was read once is known by its inode, size and time from then on. */
import { Effect, Schema } from "effect"
import { createHash } from "node:crypto"
import * as fs from "node:fs/promises"
import { join } from "node:path"
import { codeOf, textOf } from "../../host/Errno.ts"
import { type ImageFile, type MachineImage, type MachineImageError, Manifest } from "../MachineImage.ts"
import * as Elf from "./Elf.ts"
import { failedAt, fault } from "./Fault.ts"

export const MANIFEST = "manifest.json"

const Json = Schema.fromJsonString(Manifest)

/** Of a file that had just the content its manifest says: as long as these are the same, so is the content. */
const Seen = Schema.Struct({
  sha256: Schema.String,
  dev: Schema.String,
  ino: Schema.String,
  size: Schema.String,
  mtimeNs: Schema.String
})
type Seen = typeof Seen.Type
const Stamp = Schema.fromJsonString(Schema.Record(Schema.String, Seen))
type Stamp = typeof Stamp.Type

/** SHA-256 over what machines are made of: the same files have the same identity, whoever made them and when. */
export const identityOf = ({ architecture, kernel, kernelRelease, modules, root }: Manifest): string => {
  const digest = ({ file, sha256 }: ImageFile) => [file, sha256]
  const facts = [architecture, kernelRelease, digest(root), digest(kernel), modules.map(digest)]
  return createHash("sha256").update(JSON.stringify(facts)).digest("hex")
}

/** Files are read in steps of this size. */
const STEP = 1024 * 1024

/** SHA-256 of a file, in hexadecimal. */
export const sha256Of = async (path: string, signal?: AbortSignal): Promise<string> => {
  const file = await fs.open(path, "r")
  try {
    const hash = createHash("sha256")
    const buffer = Buffer.allocUnsafe(STEP)
    for (let position = 0;;) {
      signal?.throwIfAborted()
      const { bytesRead } = await file.read(buffer, 0, STEP, position)
      if (bytesRead === 0) return hash.digest("hex")
      hash.update(buffer.subarray(0, bytesRead))
      position += bytesRead
    }
  } finally {
    await file.close()
  }
}

const REMEDY = "Build it again with `stoker image build`"

/** The manifest of an image's folder. */
export const readManifest = Effect.fnUntraced(function*(image: string, folder: string) {
  const path = join(folder, MANIFEST)
  const text = yield* Effect.tryPromise({
    try: () => fs.readFile(path, "utf8"),
    catch: (cause) =>
      codeOf(cause) === "ENOENT" || codeOf(cause) === "ENOTDIR"
        ? fault(image, `there is no ${path}`, `It is no image's folder, or lost its manifest. ${REMEDY}`, cause)
        : failedAt(image, path)(cause)
  })
  return yield* Schema.decodeEffect(Json)(text).pipe(
    Effect.mapError((cause) =>
      fault(image, `${path} is none: ${textOf(cause).replaceAll(/\s*\n\s*/g, " ")}`, REMEDY, cause)
    )
  )
})

const look = async (path: string, sha256: string): Promise<Seen> => {
  const { dev, ino, mtimeNs, size } = await fs.stat(path, { bigint: true })
  return { sha256, dev: `${dev}`, ino: `${ino}`, size: `${size}`, mtimeNs: `${mtimeNs}` }
}

const isSame = (one: Seen | undefined, other: Seen) =>
  one !== undefined && JSON.stringify(one) === JSON.stringify(other)

/** That machines of this host can boot it. */
const checkKernel = Effect.fnUntraced(function*(image: string, path: string) {
  const elf = yield* Effect.tryPromise({
    try: async () => {
      const file = await fs.open(path, "r")
      try {
        return await Elf.inspect(async (offset, length) => {
          const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, offset)
          return buffer.subarray(0, bytesRead)
        })
      } finally {
        await file.close()
      }
    },
    catch: failedAt(image, path)
  })
  const size = yield* Effect.tryPromise({ try: () => fs.stat(path), catch: failedAt(image, path) })
  const reason = whyNoKernel(elf, size.size, process.arch)
  if (reason !== undefined) return yield* fault(image, `its kernel ${path} ${reason.reason}`, reason.remedy)
})

/** Why an ELF file is no kernel for machines of that architecture; nothing where it is one. */
export const whyNoKernel = (
  elf: Elf.Elf | undefined,
  bytes: number,
  architecture: string
): { readonly reason: string; readonly remedy: string } | undefined => {
  const remedy =
    "Give an uncompressed ELF vmlinux, a bzImage or a Debian kernel package to `stoker image build --kernel`"
  if (elf === undefined) return { reason: "is no ELF file", remedy }
  if (elf.machine !== Elf.machines.get(architecture)) {
    return { reason: `is for ${Elf.machineName(elf.machine)}, and this machine is ${architecture}`, remedy }
  }
  if (bytes < elf.end) return { reason: `is cut off: it has ${bytes} of at least ${elf.end} bytes`, remedy }
  if (architecture === "x64" && !elf.hasPvhNote) {
    return {
      reason: "has no PVH note, by which it is booted without firmware",
      remedy: "Build the kernel with CONFIG_PVH=y (infra/kernel does), or take Debian's cloud kernel"
    }
  }
  return undefined
}

const checkFile = Effect.fnUntraced(
  function*(image: string, folder: string, wanted: ImageFile, known: Stamp, seen: Record<string, Seen>) {
    const path = join(folder, wanted.file)
    const now = yield* Effect.tryPromise({
      try: () => look(path, wanted.sha256),
      catch: (cause) =>
        codeOf(cause) === "ENOENT" ? fault(image, `${path} is missing`, REMEDY, cause) : failedAt(image, path)(cause)
    })
    if (now.size !== `${wanted.bytes}`) {
      const cut = Number(now.size) < wanted.bytes ? "is cut off" : "is too long"
      return yield* fault(image, `${path} ${cut}: it has ${now.size} bytes, not ${wanted.bytes}`, REMEDY)
    }
    if (!isSame(known[wanted.file], now)) {
      const found = yield* Effect.tryPromise({ try: (signal) => sha256Of(path, signal), catch: failedAt(image, path) })
      if (found !== wanted.sha256) {
        return yield* fault(image, `${path} is corrupt: its SHA-256 is ${found}, not ${wanted.sha256}`, REMEDY)
      }
    }
    seen[wanted.file] = now
  }
)

/** What was seen before, in `folder`'s stamp; nothing where there is none that can be read. */
const readStamp = (path: string) =>
  Effect.tryPromise(() => fs.readFile(path, "utf8")).pipe(
    Effect.flatMap((text) => Schema.decodeEffect(Stamp)(text)),
    Effect.orElseSucceed((): Stamp => ({}))
  )

/** Only saves time for the next one: where it cannot be written, files are read again. */
const writeStamp = (path: string, stamp: Stamp) =>
  Effect.tryPromise(async () => {
    const temporary = `${path}.${process.pid}`
    await fs.writeFile(temporary, JSON.stringify(stamp), { mode: 0o600 })
    await fs.rename(temporary, path)
  }).pipe(Effect.ignore)

/** The image in `folder`, found whole. `verified` is where stamps lie. */
export const open = Effect.fnUntraced(function*(
  image: string,
  folder: string,
  verified: string
): Effect.fn.Return<MachineImage, MachineImageError> {
  const directory = yield* Effect.tryPromise({
    try: () => fs.realpath(folder),
    catch: (cause) =>
      codeOf(cause) === "ENOENT"
        ? fault(image, `${folder} is not there`, REMEDY, cause)
        : failedAt(image, folder)(cause)
  })
  const manifest = yield* readManifest(image, directory)
  if (manifest.architecture !== process.arch) {
    return yield* fault(
      image,
      `it was made for ${manifest.architecture}, and this machine is ${process.arch}`,
      "Build one on a machine of this architecture"
    )
  }
  const stampPath = join(verified, `${createHash("sha256").update(directory).digest("hex")}.json`)
  const known = yield* readStamp(stampPath)
  const seen: Record<string, Seen> = {}
  for (const file of [manifest.kernel, manifest.root, ...manifest.modules]) {
    yield* checkFile(image, directory, file, known, seen)
  }
  const isKnown = JSON.stringify(known) === JSON.stringify(seen)
  const at = ({ file }: ImageFile) => join(directory, file)
  if (!isKnown) {
    yield* checkKernel(image, at(manifest.kernel))
    yield* writeStamp(stampPath, seen)
  }
  return {
    name: image,
    identity: identityOf(manifest),
    directory,
    manifest,
    root: at(manifest.root),
    kernel: at(manifest.kernel),
    modules: manifest.modules.map(at)
  }
})
