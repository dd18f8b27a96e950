/**
 * Writes a job's files below a directory of the user's. Their names come from whoever made the job and their contents
 * from the job: no link is followed, nothing leaves the directory, nothing that is there is written over unasked.
 */
import { Effect, Schema, Stream } from "effect"
import { createHash } from "node:crypto"
import { constants } from "node:fs"
import * as fs from "node:fs/promises"
import { basename, dirname, join } from "node:path"
import { codeOf, textOf } from "../layers/host/Errno.ts"
import type { Artefact } from "../schemas/JobEvent.ts"
import { ArtefactPath } from "../schemas/Program.ts"

/** Why a file could not be written; said to a person, beside its name. */
export class OutFileError extends Schema.TaggedError<OutFileError>()("OutFileError", {
  path: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `${this.path}: ${this.reason}`
  }
}

export interface OutOptions {
  readonly directory: string
  /** Replaces files (and links, themselves) of the same names; never directories. */
  readonly overwrite: boolean
}

const { O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_RDONLY, O_WRONLY } = constants

const why = (cause: unknown): string => {
  switch (codeOf(cause)) {
    case "EEXIST":
      return "it is there already (--overwrite replaces it)"
    case "ELOOP":
    case "ENOTDIR":
      return "something that is no directory stands in its path: links are not followed"
    case "EISDIR":
      return "a directory of that name is there"
    default:
      return textOf(cause)
  }
}

const isPath = Schema.is(ArtefactPath)

/** Node has no openat(2): a name below an open directory leads there whatever becomes of the directory's own name. */
const at = (directory: fs.FileHandle, name: string) => `/proc/self/fd/${directory.fd}/${name}`

const openFolder = async (parent: fs.FileHandle, name: string): Promise<fs.FileHandle> => {
  const open = () => fs.open(at(parent, name), O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
  try {
    return await open()
  } catch (cause) {
    if (codeOf(cause) !== "ENOENT") throw cause
    await fs.mkdir(at(parent, name)).catch((error: unknown) => {
      if (codeOf(error) !== "EEXIST") throw error
    })
    return await open()
  }
}

/** The folder a file lies in, made if it is not there; the user's own directory may be a link. */
const folderOf = async (directory: string, path: string): Promise<fs.FileHandle> => {
  await fs.mkdir(directory, { recursive: true })
  let folder = await fs.open(directory, O_RDONLY | O_DIRECTORY)
  for (const part of path.split("/").slice(0, -1)) {
    const parent = folder
    folder = await openFolder(parent, part).finally(() => parent.close())
  }
  return folder
}

interface Opened {
  readonly file: fs.FileHandle
  readonly folder: fs.FileHandle
  /** What it is called until it is whole. */
  readonly name: string
}

const open = async ({ directory, overwrite }: OutOptions, path: string): Promise<Opened> => {
  const folder = await folderOf(directory, path)
  // Beside the one it replaces, which stays as it is until this one is whole.
  const name = overwrite
    ? `.stoker-${process.pid}-${createHash("sha256").update(path).digest("hex").slice(0, 16)}`
    : basename(path)
  try {
    if (overwrite) await fs.rm(at(folder, name), { force: true })
    const file = await fs.open(at(folder, name), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o666)
    return { file, folder, name }
  } catch (cause) {
    await folder.close()
    throw cause
  }
}

/** Writes one file. Bytes that are not the artefact's (by length or SHA-256) are an error, and no file. */
const write = Effect.fnUntraced(function*<E, R>(
  options: OutOptions,
  path: string,
  artefact: Artefact,
  content: Stream.Stream<Uint8Array, E, R>
) {
  const attempt = <A>(run: () => Promise<A>) =>
    Effect.tryPromise({ try: run, catch: (cause) => new OutFileError({ path, reason: why(cause) }) })
  yield* Effect.acquireUseRelease(
    attempt(() => open(options, path)),
    Effect.fnUntraced(function*({ file, folder, name }) {
      const hash = createHash("sha256")
      let bytes = 0
      yield* Stream.runForEach(content, (piece) =>
        attempt(async () => {
          hash.update(piece)
          bytes += piece.length
          await file.writeFile(piece)
        }))
      if (bytes !== artefact.bytes || hash.digest("hex") !== artefact.sha256) {
        return yield* new OutFileError({
          path,
          reason: "what came is not what the job left: its SHA-256 is another one"
        })
      }
      if (options.overwrite) yield* attempt(() => fs.rename(at(folder, name), at(folder, basename(path))))
    }),
    ({ file, folder, name }, exit) =>
      Effect.ignore(Effect.tryPromise(async () => {
        await file.close()
        if (exit._tag === "Failure") await fs.rm(at(folder, name), { force: true })
        await folder.close()
      }))
  )
})

/** Below the directory, under the artefact's own name. */
export const writeBelow = <E, R>(options: OutOptions, artefact: Artefact, content: Stream.Stream<Uint8Array, E, R>) =>
  isPath(artefact.path)
    ? write(options, artefact.path, artefact, content)
    : Effect.fail(
      new OutFileError({ path: JSON.stringify(artefact.path), reason: "its name could lead out of the directory" })
    )

/** To a file that the user named. */
export const writeTo = <E, R>(
  file: string,
  overwrite: boolean,
  artefact: Artefact,
  content: Stream.Stream<Uint8Array, E, R>
) => write({ directory: dirname(file), overwrite }, basename(file), artefact, content)

/** Those names that are taken already, so that nobody waits for a job whose files have no place. */
export const taken = ({ directory, overwrite }: OutOptions, paths: ReadonlyArray<string>) =>
  overwrite
    ? Effect.succeed([])
    : Effect.filter(
      paths,
      (path) => Effect.promise(() => fs.lstat(join(directory, path)).then(() => true, () => false))
    )
