/** Makes a request of what a command line says: files or a command, their input, limits. */
import { Effect, Option, Schema } from "effect"
import { SecureRandom } from "effect/crypto"
import { constants, type Stats } from "node:fs"
import * as fs from "node:fs/promises"
import { basename, extname, isAbsolute, normalize } from "node:path"
import { randomName } from "../layers/host/RandomName.ts"
import { requestHash } from "../layers/intake/RequestHash.ts"
import type { Request } from "../layers/journal/Journal.ts"
import { ClassName, FunctionName, type IntakeName, JobId, Owner } from "../schemas/Ids.ts"
import type { Job } from "../schemas/Job.ts"
import type { LimitsRequest } from "../schemas/Limits.ts"
import { usageFailure } from "./CliFailure.ts"
import { containerArgs, type ContainerOptions } from "./ContainerSource.ts"

export type Language = "c" | "cpp" | "python" | "go"

/** What `run` and `submit` are told. */
export interface JobOptions {
  readonly files: ReadonlyArray<string>
  /** What follows `--`: the program's arguments, those of a container's image, or without both the command. */
  readonly operands: ReadonlyArray<string>
  readonly language: Option.Option<Language>
  readonly variant: Option.Option<string>
  readonly stdin: Option.Option<string>
  readonly env: ReadonlyArray<readonly [name: string, value: string]>
  /** Compiled anew, whatever was compiled before. */
  readonly noCache: boolean
  /** Files to bring back. */
  readonly artefact: ReadonlyArray<string>
  readonly class: Option.Option<string>
  readonly limits: LimitsRequest
  readonly container: ContainerOptions
}

/** Files and standard input travel with the job, and are written down with it. Bytes. */
const MOST_INPUT = 32 * 1024 * 1024

const extensions: Readonly<Record<string, Language>> = {
  ".c": "c",
  ".cpp": "cpp",
  ".cc": "cpp",
  ".cxx": "cpp",
  ".py": "python",
  ".go": "go"
}

const languageOf = (file: string): Language | undefined => extensions[extname(file).toLowerCase()]

/** The one language of the files, by their names. */
const detect = (files: ReadonlyArray<string>) => {
  const found = new Set(files.flatMap((file) => languageOf(file) ?? []))
  // One compiler takes both.
  if (found.has("cpp")) found.delete("c")
  const [only] = found
  if (only === undefined) {
    return Effect.fail(usageFailure(
      `the language of ${files.join(", ")} is not known`,
      `Name it with --language (c, cpp, python, go). To run a command of the sandbox: stoker run -- ${files.join(" ")}`
    ))
  }
  return found.size === 1
    ? Effect.succeed(only)
    : Effect.fail(usageFailure(
      `the files are of several languages: ${[...found].join(", ")}`,
      "Name the one to run with --language."
    ))
}

const why = (cause: unknown): string => {
  const code = cause instanceof Error && "code" in cause ? cause.code : undefined
  return code === "ENOENT"
    ? "there is no such file"
    : code === "EACCES"
    ? "permission denied"
    : code === "EISDIR"
    ? "it is a directory"
    : cause instanceof Error
    ? cause.message
    : String(cause)
}

const readInput = (path: string, remedy: string) =>
  Effect.tryPromise({
    try: async () => {
      const stat: Stats = await fs.stat(path)
      // A pipe without a writer would never end, not even by a signal: the read waits in the kernel.
      if (!stat.isFile()) throw new Error(stat.isDirectory() ? "it is a directory" : "it is not a regular file")
      if (stat.size > MOST_INPUT) throw new Error(`it has ${stat.size} bytes, more than a job can take along (32 MiB)`)
      return { content: await fs.readFile(path), executable: (stat.mode & constants.S_IXUSR) !== 0 }
    },
    catch: (cause) => usageFailure(`${path} cannot be read: ${why(cause)}`, remedy)
  })

const readStdin = Effect.tryPromise({
  try: async () => {
    const chunks: Array<Buffer> = []
    let size = 0
    for await (const chunk of process.stdin as AsyncIterable<Buffer>) {
      size += chunk.length
      if (size > MOST_INPUT) throw new Error("it has more bytes than a job can take along (32 MiB)")
      chunks.push(chunk)
    }
    return Buffer.concat(chunks)
  },
  catch: (cause) => usageFailure(`standard input cannot be read: ${why(cause)}`, "Give a smaller one, or none.")
})

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/** The text, if the bytes are exactly that in UTF-8. */
export const textOf = (bytes: Uint8Array): string | undefined => {
  try {
    return utf8.decode(bytes)
  } catch {
    return undefined
  }
}

/** Where a file lies in the workspace: as it was named, or by its last name if that leads elsewhere. */
const workPath = (file: string): string => {
  const path = normalize(file)
  return isAbsolute(path) || path.startsWith("..") ? basename(path) : path
}

const inputFile = Effect.fnUntraced(function*(file: string, files: ReadonlyArray<string>) {
  const { content, executable } = yield* readInput(
    file,
    `Check the name. Arguments of the program go behind --, a command too: stoker run -- ${files.join(" ")}`
  )
  const text = textOf(content)
  return {
    path: workPath(file),
    ...(text === undefined ? { contentBase64: content.toString("base64") } : { content: text }),
    ...(executable ? { executable } : {})
  }
})

/** `stdin` or `stdinBase64` of the function. */
const standardInput = Effect.fnUntraced(function*(stdin: Option.Option<string>) {
  if (Option.isNone(stdin)) return {}
  const bytes = stdin.value === "-"
    ? yield* readStdin
    : (yield* readInput(stdin.value, "Name a file with --stdin, or - for this command's own input.")).content
  const text = textOf(bytes)
  return text === undefined ? { stdinBase64: bytes.toString("base64") } : { stdin: text }
})

const codeArgs = Effect.fnUntraced(function*(options: JobOptions) {
  const { files, operands } = options
  const language = Option.isSome(options.language) ? options.language.value : yield* detect(files)
  const main = files.find((file) => languageOf(file) === language) ?? files[0]
  return {
    language,
    files: yield* Effect.forEach(files, (file) => inputFile(file, files)),
    ...(Option.isSome(options.variant) ? { variant: options.variant.value } : {}),
    // The first file named is the one to begin with, where a language asks.
    ...(main === undefined || (language !== "python" && language !== "go") ? {} : { entry: workPath(main) }),
    ...(operands.length === 0 ? {} : { args: operands }),
    ...(options.noCache ? { cache: false } : {})
  }
})

const decodeClass = Schema.decodeUnknownOption(ClassName)

/** A request under a new id, `<prefix>-` and ten random letters and digits. */
export const requestOf = Effect.fn("JobSource.requestOf")(function*(
  options: JobOptions,
  place: { readonly intake: IntakeName; readonly prefix: string; readonly command: "run" | "submit" }
) {
  const { artefact: artefacts, files, operands } = options
  if (new Set(artefacts).size < artefacts.length) {
    return yield* usageFailure("an --artefact is named twice", "Name each file once.")
  }
  const contained = yield* containerArgs(options.container, operands, [
    ...files,
    ...(Option.isSome(options.language) ? ["--language"] : []),
    ...(Option.isSome(options.variant) ? ["--variant"] : []),
    ...(Option.isSome(options.stdin) ? ["--stdin"] : []),
    ...(options.noCache ? ["--no-cache"] : [])
  ])
  if (contained === undefined && files.length === 0 && operands.length === 0) {
    return yield* usageFailure(
      "there is nothing to run",
      `Name a file (hello.c), a command behind -- (stoker ${place.command} -- ls -l), or an image (--image debian:12).`
    )
  }
  const own = contained ?? (files.length === 0 ? { argv: operands } : yield* codeArgs(options))
  const className = Option.flatMap(options.class, decodeClass)
  if (Option.isSome(options.class) && Option.isNone(className)) {
    return yield* usageFailure(
      `--class ${options.class.value} is no name of a class`,
      "Use one such as oci or process."
    )
  }
  const input = yield* standardInput(options.stdin)
  const env = Object.fromEntries(options.env)
  const job: Job = {
    id: JobId.make(`${place.prefix}-${yield* randomName(yield* SecureRandom.SecureRandom, 10)}`),
    owner: Owner.make("local"),
    intake: place.intake,
    function: FunctionName.make(contained !== undefined ? "container" : files.length === 0 ? "command" : "code"),
    args: {
      ...own,
      ...input,
      ...(options.env.length === 0 ? {} : { env }),
      ...(artefacts.length === 0 ? {} : { artefacts })
    } as Schema.Json,
    ...(Option.isSome(className) ? { class: className.value } : {}),
    limits: options.limits
  }
  return { job, hash: requestHash(job), reply: null } satisfies Request
})
