/**
 * What a machine starts from: this worker's own first process, guest and agent, and the modules of an image's kernel. So the
 * guest is always of the worker's version, and an image does not age with it.
 *
 * They lie in the state directory by their content, for all workers that share it. One that nobody has asked for in a week
 * goes when another is made.
 */
import { Clock, Effect, Semaphore } from "effect"
import { createHash } from "node:crypto"
import * as fs from "node:fs/promises"
import { basename, join } from "node:path"
import { remedyOf, textOf } from "../host/Errno.ts"
import { makeFolder } from "../host/Folder.ts"
import { Host } from "../host/Host.ts"
import { Native } from "../host/Native.ts"
import { initramfs } from "./Cpio.ts"
import { type MachineImage, MachineImageError } from "./MachineImage.ts"

const DAY_MS = 86_400_000
const UNUSED_MS = 7 * DAY_MS

/** One that is being made has a name of its own, and is not the last. */
const HALF_MADE = "new-"

export interface Initrd {
  /** Absolute. Not to be changed; everybody can read it, for VMMs are users of their own. */
  readonly path: string
  readonly sha256: string
}

/** Bytes of the archive; `own` are paths of our programs. Throws what the file system says. */
const archive = async (own: Readonly<Record<"agent" | "guest" | "init", string>>, modules: ReadonlyArray<string>) => {
  const names = modules.map((path) => basename(path))
  const entries = [
    ...Object.entries(own),
    ...modules.map((path, index) => [names[index] ?? "", path] as const)
  ]
  const files = await Promise.all(entries.map(async ([name, path]) => ({ name, bytes: await fs.readFile(path) })))
  return initramfs([...files, { name: "modules.list", bytes: Buffer.from(names.map((name) => `/${name}\n`).join("")) }])
}

/** Whole or not there, even after a power cut: two workers may make the same one. */
const write = async (folder: string, path: string, bytes: Buffer) => {
  const making = await fs.mkdtemp(join(folder, HALF_MADE))
  try {
    const made = await fs.open(join(making, basename(path)), "wx", 0o644)
    try {
      await made.writeFile(bytes)
      await made.chmod(0o644)
      await made.sync()
    } finally {
      await made.close()
    }
    await fs.rename(join(making, basename(path)), path)
  } finally {
    await fs.rm(making, { recursive: true, force: true })
  }
}

const removeOld = async (folder: string, now: number) => {
  for (const name of await fs.readdir(folder)) {
    const path = join(folder, name)
    const used = await fs.stat(path).then(({ mtimeMs }) => mtimeMs, () => now)
    if (now - used > (name.startsWith(HALF_MADE) ? DAY_MS : UNUSED_MS)) {
      await fs.rm(path, { recursive: true, force: true }).catch(() => {})
    }
  }
}

/** Makes initrds, each once in this process. */
export const make = Effect.gen(function*() {
  const { agent, guest, init } = yield* Native
  const folder = join((yield* Host).paths.state, "initrds")
  const one = yield* Semaphore.make(1)
  const known = new Map<string, Initrd & { readonly bytes: number }>()

  const failed = (image: MachineImage, path: string) => (cause: unknown) =>
    new MachineImageError({
      image: image.name,
      reason: `its initrd: ${path}: ${textOf(cause)}`,
      remedy: remedyOf(cause, path),
      cause
    })

  const isThere = ({ bytes, path }: Initrd & { readonly bytes: number }, now: number) =>
    fs.stat(path).then(async ({ mtimeMs, size }) => {
      if (now - mtimeMs > DAY_MS) await fs.utimes(path, now / 1000, now / 1000).catch(() => {})
      return size === bytes
    }, () => false)

  const of = Effect.fn("Initrd.of")(function*(image: MachineImage) {
    const now = yield* Clock.currentTimeMillis
    const before = known.get(image.identity)
    if (before !== undefined && (yield* Effect.promise(() => isThere(before, now)))) return before
    const bytes = yield* Effect.tryPromise({
      try: () => archive({ agent, guest, init }, image.modules),
      catch: failed(image, image.directory)
    })
    const sha256 = createHash("sha256").update(bytes).digest("hex")
    const initrd = { path: join(folder, sha256), sha256, bytes: bytes.length }
    if (!(yield* Effect.promise(() => isThere(initrd, now)))) {
      yield* makeFolder(folder, failed(image, folder))
      yield* Effect.tryPromise({
        try: async () => {
          await write(folder, initrd.path, bytes)
          await removeOld(folder, now)
        },
        catch: failed(image, folder)
      })
    }
    known.set(image.identity, initrd)
    return initrd
  })

  return (image: MachineImage): Effect.Effect<Initrd, MachineImageError> => one.withPermit(of(image))
})
