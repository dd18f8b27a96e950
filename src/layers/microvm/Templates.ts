/**
 * Machines that were booted once and saved, for all workers of a state directory: whoever needs one that is not there makes it,
 * the others wait. A template names all that it depends on, and is read through before it is used for the first time.
 */
import { Clock, Effect, Schema } from "effect"
import { createHash } from "node:crypto"
import * as fs from "node:fs/promises"
import { join } from "node:path"
import { codeOf, textOf } from "../host/Errno.ts"
import * as FileLock from "../host/FileLock.ts"
import { makeFolder } from "../host/Folder.ts"
import { ImageFile } from "./MachineImage.ts"
import * as SparseFile from "./SparseFile.ts"
import type { Snapshot } from "./Vmm.ts"

/** A template could not be made or read: why, and what to do. Machines boot without it. */
export class TemplateError extends Schema.TaggedError<TemplateError>()("TemplateError", {
  reason: Schema.String,
  remedy: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    return `${this.reason}. ${this.remedy}`
  }
}

/** All that a template depends on: with anything else in its place it is another one. */
export const Binding = Schema.Struct({
  /** `Vmm.identity`: program, version, accelerator, processor, host's kernel. */
  vmm: Schema.String,
  /** `MachineImage.identity`. */
  image: Schema.String,
  /** The initrd's SHA-256: the worker's own programs are in it. */
  initrd: Schema.String,
  vcpus: Schema.Natural,
  memoryMib: Schema.Natural,
  diskBytes: Schema.Natural,
  diskInodes: Schema.Natural,
  bootArgs: Schema.Array(Schema.String)
})
export type Binding = typeof Binding.Type

const Manifest = Schema.Struct({
  version: Schema.Literal(1),
  madeAtMs: Schema.Natural,
  binding: Binding,
  files: Schema.Array(ImageFile)
})
type Manifest = typeof Manifest.Type

const MANIFEST = "manifest.json"
const LOCK = "lock"

const DAY_MS = 86_400_000
/** One nobody has used for so long goes; a worker that uses one says so every hour at most. */
const IDLE_MS = 7 * DAY_MS
const TOUCH_MS = 3_600_000
/** Of more than these the ones unused for longest go, unless they were used since yesterday. */
const MOST = 16

const encode = Schema.encodeSync(Schema.fromJsonString(Manifest))
const decode = Schema.decodeUnknownEffect(Schema.fromJsonString(Manifest))
const encodeBinding = Schema.encodeSync(Schema.fromJsonString(Binding))

/** A folder's name, which changes with whatever a template is bound to. */
export const nameOf = (binding: Binding): string =>
  createHash("sha256").update(encodeBinding(binding)).digest("hex").slice(0, 32)

/** Where all of them lie. */
export const folderOf = (stateDirectory: string) => join(stateDirectory, "machine-templates")

/** Where one is made: named by the row of the machine that it is made of, so that it goes with it. */
export const makingOf = (stateDirectory: string, row: string) => join(folderOf(stateDirectory), `making-${row}`)

const failed = (what: string) => (cause: unknown) =>
  new TemplateError({
    reason: `${what}: ${textOf(cause)}`,
    remedy: "Is the state directory writable and not full?",
    cause
  })

const attempt = <A>(what: string, run: () => Promise<A>) => Effect.tryPromise({ try: run, catch: failed(what) })

/** Hands a finished folder over to be the template. */
export type Finish = (directory: string) => Effect.Effect<void, TemplateError>

export const make = (stateDirectory: string) => {
  const folder = folderOf(stateDirectory)
  /** Read through by this worker. */
  const trusted = new Map<string, { touchedMs: number }>()
  const pathOf = (binding: Binding) => join(folder, nameOf(binding))

  /** Why it is not to be used; undefined for one that is whole. */
  const flaw = Effect.fnUntraced(function*(path: string, binding: Binding) {
    const text = yield* attempt("reading it", () => fs.readFile(join(path, MANIFEST), "utf8"))
    const manifest = yield* Effect.mapError(decode(text), failed("reading it"))
    if (encodeBinding(manifest.binding) !== encodeBinding(binding)) return "it is another one"
    for (const { bytes, file, sha256 } of manifest.files) {
      const found = yield* attempt(`reading ${file}`, () => SparseFile.digest(join(path, file)))
      if (found.bytes !== bytes || found.sha256 !== sha256) return `${file} is not what was written`
    }
    return undefined
  })

  const discardAt = (path: string) =>
    // Elsewhere first: nobody is to find half of it.
    attempt(`removing ${path}`, async () => {
      const gone = `${path}.gone-${process.pid}`
      try {
        await fs.rename(path, gone)
      } catch (cause) {
        if (codeOf(cause) === "ENOENT") return
        throw cause
      }
      await fs.rm(gone, { recursive: true, force: true })
    })

  const touch = Effect.fnUntraced(function*(path: string, known: { touchedMs: number }) {
    const nowMs = yield* Clock.currentTimeMillis
    if (nowMs - known.touchedMs < TOUCH_MS) return
    known.touchedMs = nowMs
    yield* Effect.ignore(attempt("noting its use", () => fs.utimes(path, nowMs / 1000, nowMs / 1000)))
  })

  /** The template, if it is there and whole. One that is not is removed. */
  const find = Effect.fnUntraced(function*(binding: Binding) {
    const path = pathOf(binding)
    const there = yield* attempt(
      "looking for it",
      () =>
        fs.access(join(path, MANIFEST)).then(() => true, (cause: unknown) => {
          if (codeOf(cause) === "ENOENT") return false
          throw cause
        })
    )
    if (!there) {
      trusted.delete(path)
      return undefined
    }
    const known = trusted.get(path) ?? { touchedMs: 0 }
    if (!trusted.has(path)) {
      const reason = yield* flaw(path, binding).pipe(
        Effect.catchTag("TemplateError", (error) => Effect.succeed(error.reason))
      )
      if (reason !== undefined) {
        yield* Effect.logWarning(`the machine template ${path} is not used (${reason}), and made anew`)
        yield* discardAt(path)
        return undefined
      }
      trusted.set(path, known)
    }
    yield* touch(path, known)
    const snapshot: Snapshot = { directory: path }
    return snapshot
  })

  const finish = (binding: Binding): Finish => (directory) =>
    Effect.gen(function*() {
      const names = (yield* attempt("listing it", () => fs.readdir(directory))).filter((name) => name !== MANIFEST)
      const files = yield* Effect.forEach(names, (file) =>
        attempt(`reading ${file}`, async () => {
          const path = join(directory, file)
          // Machines of other users read it; nobody writes it any more.
          await fs.chown(path, 0, 0)
          await fs.chmod(path, 0o444)
          return { file, ...await SparseFile.digest(path) }
        }))
      const manifest: Manifest = { version: 1, madeAtMs: yield* Clock.currentTimeMillis, binding, files }
      const path = pathOf(binding)
      yield* attempt("keeping it", async () => {
        await fs.writeFile(join(directory, MANIFEST), encode(manifest), { mode: 0o444 })
        await fs.chown(directory, 0, 0)
        await fs.chmod(directory, 0o755)
        await fs.rename(directory, path)
      })
      trusted.set(path, { touchedMs: 0 })
    })

  /** Removes what nobody has used for long, and those that were made for what is not there any more. */
  const prune = Effect.gen(function*() {
    const nowMs = yield* Clock.currentTimeMillis
    const names = yield* attempt("listing them", () => fs.readdir(folder))
    const found = yield* Effect.forEach(
      names.filter((name) => /^[0-9a-f]{32}$/.test(name)),
      (name) =>
        Effect.map(attempt("looking at one", () => fs.stat(join(folder, name))), ({ mtimeMs }) => ({ name, mtimeMs }))
    )
    const newestFirst = found.toSorted((one, other) => other.mtimeMs - one.mtimeMs)
    const old = newestFirst.filter(({ mtimeMs, name }, index) =>
      !trusted.has(join(folder, name)) && nowMs - mtimeMs > (index < MOST ? IDLE_MS : DAY_MS)
    )
    for (const { name } of old) yield* discardAt(join(folder, name))
    // Its remover died half-way.
    for (const name of names.filter((one) => one.includes(".gone-"))) {
      yield* attempt("removing one", () => fs.rm(join(folder, name), { recursive: true, force: true }))
    }
  }).pipe(Effect.ignore({ log: "Warn", message: "old machine templates could not be removed" }))

  return {
    /** Now, without waiting for anybody. */
    find,
    /**
     * The template; `build` makes one if there is none, in a folder of its own (`makingOf`) that it gives to `finish` when
     * its machine has ended. One is made at a time on this host.
     */
    obtain: Effect.fn("Templates.obtain")(function*<E>(
      binding: Binding,
      build: (finish: Finish) => Effect.Effect<void, E>
    ) {
      const found = yield* find(binding)
      if (found !== undefined) return found
      yield* makeFolder(folder, failed(`making ${folder}`))
      yield* attempt("opening it", () => fs.chmod(folder, 0o711))
      yield* FileLock.hold(join(folder, LOCK), failed("waiting for others that make one"))
      const others = yield* find(binding)
      if (others !== undefined) return others
      yield* build(finish(binding))
      yield* prune
      return yield* Effect.flatMap(
        find(binding),
        (made) =>
          made === undefined
            ? Effect.fail(
              new TemplateError({
                reason: "the template is gone again",
                remedy: "Who removes files in the state directory?"
              })
            )
            : Effect.succeed(made)
      )
    }, Effect.scoped),
    /** It failed somebody: whoever comes next makes another. */
    discard: (binding: Binding) => {
      const path = pathOf(binding)
      trusted.delete(path)
      return discardAt(path)
    }
  }
}
export type Templates = ReturnType<typeof make>
