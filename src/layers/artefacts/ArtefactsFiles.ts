/** Artefacts as files below the state directory, one for each job that left some. */
import { Effect, Layer } from "effect"
import { createHash } from "node:crypto"
import * as fs from "node:fs/promises"
import { dirname, join } from "node:path"
import { type JobKey, keyText } from "../../schemas/Ids.ts"
import type { Artefact } from "../../schemas/JobEvent.ts"
import { codeOf, remedyOf, textOf } from "../host/Errno.ts"
import { makeFolder } from "../host/Folder.ts"
import { Host } from "../host/Host.ts"
import * as Prune from "../host/Prune.ts"
import * as Release from "../Release.ts"
import {
  decodeHead,
  decodeList,
  decodeTail,
  encodeHead,
  encodeTail,
  mostHeadBytes,
  tailBytes
} from "./ArtefactFormat.ts"
import type { Entry } from "./ArtefactFormat.ts"
import { ArtefactError, ArtefactNotFound, Artefacts } from "./Artefacts.ts"

/** Hashed and written together; the event loop has a turn between two. */
const sliceBytes = 1024 * 1024

/** As the logs have it: a hash, because a key may be longer than a file name can be, in one of 256 folders. */
const pathOf = (folder: string, key: JobKey): string => {
  const name = createHash("sha256").update(keyText(key)).digest("hex").slice(0, 32)
  return join(folder, name.slice(0, 2), name)
}

const failed = (operation: ArtefactError["operation"], path: string, cause: unknown) =>
  new ArtefactError({ operation, reason: textOf(cause), remedy: remedyOf(cause, path), cause })

const attempt = <A>(operation: ArtefactError["operation"], path: string, run: () => Promise<A>) =>
  Effect.tryPromise({ try: run, catch: (cause) => failed(operation, path, cause) })

const isAbsent = (error: ArtefactError) => codeOf(error.cause) === "ENOENT"

const unlink = (operation: ArtefactError["operation"], path: string) =>
  attempt(operation, path, () => fs.unlink(path)).pipe(Effect.catchIf(isAbsent, () => Effect.void))

const writeAll = async (file: fs.FileHandle, bytes: Uint8Array, position: number) => {
  let done = 0
  // A disk that fills up takes a part first and says why only when asked for the rest.
  while (done < bytes.length) done += (await file.write(bytes, done, bytes.length - done, position + done)).bytesWritten
}

/** Exactly so many bytes, or all there are. */
const readAt = async (file: fs.FileHandle, position: number, length: number): Promise<Buffer> => {
  const buffer = Buffer.allocUnsafeSlow(length)
  let got = 0
  while (got < length) {
    const { bytesRead } = await file.read(buffer, got, length - got, position + got)
    if (bytesRead === 0) break
    got += bytesRead
  }
  return buffer.subarray(0, got)
}

const damaged = (path: string, what: string) =>
  new ArtefactError({
    operation: "read",
    reason: `${path} ${what}`,
    remedy: "If no newer version wrote it, remove it: its disk or machine failed"
  })

/** The list of a file that is proven to be this job's. */
const listOf = async (file: fs.FileHandle, path: string, key: JobKey): Promise<ReadonlyArray<Entry>> => {
  const { size } = await file.stat()
  const owner = decodeHead(await readAt(file, 0, Math.min(size, mostHeadBytes)))
  const tail = decodeTail(await readAt(file, Math.max(0, size - tailBytes), Math.min(size, tailBytes)), size)
  const list = tail === undefined ? undefined : decodeList(await readAt(file, tail.at, tail.length), tail.crc)
  if (list === undefined || owner === undefined) {
    throw damaged(path, "is no file of artefacts of this version of Stoker")
  }
  if (owner !== keyText(key)) throw damaged(path, `is that of ${owner}, not of ${keyText(key)}`)
  return list
}

const reading = async (path: string, key: JobKey, wanted: Artefact, offset: number, maxBytes: number) => {
  const file = await fs.open(path, "r")
  try {
    const entry = (await listOf(file, path, key)).find((one) => one.path === wanted.path)
    if (entry === undefined || entry.sha256 !== wanted.sha256 || entry.bytes !== wanted.bytes) return undefined
    return await readAt(file, entry.at + offset, Math.max(0, Math.min(Math.max(1, maxBytes), entry.bytes - offset)))
  } finally {
    await file.close()
  }
}

/** So that the name is there after a failure of the power too. */
const syncFolder = async (path: string) => {
  const folder = await fs.open(path, "r")
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

const make = Effect.gen(function*() {
  const host = yield* Host
  const folder = host.paths.artefacts
  const own = host.paths.instance(host.instance)
  let serial = 0

  const create = Effect.fnUntraced(function*(path: string, key: JobKey) {
    const open = attempt("write", path, () => fs.open(path, "wx+", 0o600))
    const file = yield* open.pipe(
      Effect.catchIf(
        isAbsent,
        () => Effect.andThen(makeFolder(dirname(path), (cause) => failed("write", path, cause)), open)
      )
    )
    const head = encodeHead(keyText(key))
    yield* attempt("write", path, () => writeAll(file, head, 0)).pipe(
      Effect.tapError(() =>
        Effect.ensuring(Effect.ignore(Effect.tryPromise(() => file.close())), Effect.ignore(unlink("remove", path)))
      )
    )
    return { file, bytes: head.length }
  })

  const open: Artefacts["Service"]["open"] = Effect.fnUntraced(function*(key) {
    // Below the instance, with which it goes when the worker dies.
    const path = join(own, `artefacts-${serial++}`)
    const target = pathOf(folder, key)
    const entries: Array<Entry> = []
    let file: fs.FileHandle | undefined
    let end = 0
    let isKept = false

    const close = Effect.suspend(() => {
      const open = file
      file = undefined
      return open === undefined ? Effect.void : attempt("write", path, () => open.close())
    })
    yield* Effect.addFinalizer(() =>
      Effect.suspend(() => {
        if (isKept || end === 0) return Effect.void
        return close.pipe(
          Effect.ensuring(Effect.ignore(unlink("remove", path))),
          Release.within(`artefacts of ${keyText(key)}`, "5 seconds")
        )
      })
    )

    /** Gives back what a failed write took. */
    const cutOff = (to: number) =>
      Effect.suspend(() => {
        const written = file
        return written === undefined ? Effect.void : Effect.ignore(Effect.tryPromise(() => written.truncate(to)))
      })

    return {
      add: Effect.fnUntraced(function*(name, content) {
        if (file === undefined) {
          const made = yield* create(path, key)
          file = made.file
          end = made.bytes
        }
        const written = file
        const at = end
        const hash = createHash("sha256")
        yield* attempt("write", path, async () => {
          for (let from = 0; from < content.length; from += sliceBytes) {
            const slice = content.subarray(from, from + sliceBytes)
            hash.update(slice)
            await writeAll(written, slice, at + from)
          }
        }).pipe(Effect.tapError(() => cutOff(at)))
        const artefact: Artefact = { path: name, bytes: content.length, sha256: hash.digest("hex") }
        entries.push({ ...artefact, at })
        end += content.length
        return artefact
      }, Effect.uninterruptible),
      keep: Effect.gen(function*() {
        const written = file
        if (entries.length === 0 || written === undefined) return yield* unlink("write", target)
        yield* attempt("write", path, async () => {
          await writeAll(written, encodeTail(entries, end), end)
          await written.sync()
        })
        yield* close
        yield* makeFolder(dirname(target), (cause) => failed("write", target, cause))
        yield* attempt("write", target, async () => {
          await fs.rename(path, target)
          isKept = true
          await syncFolder(dirname(target))
        })
      }).pipe(Effect.uninterruptible)
    }
  }, Effect.uninterruptible)

  const prune = yield* Prune.make({
    folder,
    headBytes: mostHeadBytes,
    // Only whole ones are moved there.
    belongsTo: (head) => {
      const key = decodeHead(head)
      return key === undefined ? { _tag: "Unknown" } : { _tag: "Job", key }
    },
    // It is written elsewhere, and moved there with its last byte.
    isLive: () => false,
    failed: (path, cause) => failed("remove", path, cause)
  })

  return Artefacts.of({
    open,
    read: Effect.fn("Artefacts.read")(function*(key, artefact, { maxBytes, offset }) {
      const path = pathOf(folder, key)
      const bytes = yield* Effect.tryPromise({
        try: () => reading(path, key, artefact, offset, maxBytes),
        catch: (cause) => cause instanceof ArtefactError ? cause : failed("read", path, cause)
      }).pipe(Effect.catchIf(isAbsent, () => Effect.undefined))
      return bytes ?? (yield* new ArtefactNotFound({ key, path: artefact.path }))
    }),
    remove: Effect.fn("Artefacts.remove")((key) => unlink("remove", pathOf(folder, key))),
    prune: Effect.fn("Artefacts.prune")((idleMs, forgotten) => prune(idleMs, forgotten))
  })
})

/** Artefacts in `<state>/artefacts`, which other workers and commands on this host read as well. */
export const layer: Layer.Layer<Artefacts, never, Host> = Layer.effect(Artefacts, make)
