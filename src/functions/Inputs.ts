/** What a job brings along besides its code: files, standard input, arguments, environment. Shared by the functions. */
import { Result, Schema } from "effect"
import { ExecString } from "../schemas/ExecString.ts"
import { ArtefactPaths, baseEnv, type ProgramFile, WorkPath } from "../schemas/Program.ts"

/** Why an input is not usable, and what would be. A function makes an `InvalidArguments` of it. */
export interface Refusal {
  readonly reason: string
  readonly remedy: string
}

/** A field with what people call it and what it is for: shown in help texts and in the function's JSON Schema. */
export const field = <S extends Schema.Top>(schema: S, title: string, description: string) =>
  schema.pipe(Schema.annotateKey({ title, description }))

/** One that may be absent. */
export const optional = <S extends Schema.Top>(schema: S, title: string, description: string) =>
  field(Schema.optionalKey(schema), title, description)

/** Bytes that are written as base64. What is said of them is said of the text too, which is what a JSON Schema shows. */
const bytes = (title: string, description: string) =>
  optional(Schema.flip(Schema.flip(Schema.Uint8ArrayFromBase64).annotate({ title, description })), title, description)

/** A file for the workspace, as text (UTF-8) or as base64. Exactly one of the two. */
export const InputFile = Schema.Struct({
  path: field(WorkPath, "Path", "where it lies in the workspace"),
  content: optional(Schema.String, "Content", "its text"),
  contentBase64: bytes("Content", "its bytes, in base64"),
  executable: optional(Schema.Boolean, "Executable", "mode 0755 instead of 0644")
})
export type InputFile = typeof InputFile.Type

/** Variables for the program, on top of `baseEnv`; the same name replaces. */
const Environment = Schema.Record(Schema.String, ExecString).check(
  // As a check of the whole: a pattern on the keys would drop the others in silence.
  Schema.makeFilter(
    (env: Readonly<Record<string, string>>) => Object.keys(env).every((name) => name !== "" && !/[=\0]/.test(name)),
    { expected: "variable names without '=' and NUL, not empty" }
  )
)

/** The argument fields every program can have. Standard input is text or base64, not both; absent is empty. */
export const inputFields = {
  stdin: optional(Schema.String, "Standard input", "what the program reads, as text"),
  stdinBase64: bytes("Standard input", "what the program reads, in base64"),
  env: optional(Environment, "Environment", "variables for the program, on top of the usual ones"),
  artefacts: optional(ArtefactPaths, "Artefacts", "files to bring back when it has ended, however that was")
}

const utf8 = new TextEncoder()

/** A text file of the workspace. */
export const textFile = (path: WorkPath, content: string): ProgramFile => ({
  path,
  content: utf8.encode(content),
  executable: false
})

/** Checks files together: each has one content, no path is there twice, and none lies below another file. */
export const programFiles = (files: ReadonlyArray<InputFile>): Result.Result<ReadonlyArray<ProgramFile>, Refusal> => {
  const refuse = (reason: string, remedy: string) => Result.fail({ reason, remedy })
  const paths = new Set<string>()
  const made: Array<ProgramFile> = []
  for (const { content, contentBase64, executable = false, path } of files) {
    if ((content === undefined) === (contentBase64 === undefined)) {
      return refuse(
        `the file ${path} has ${content === undefined ? "no content" : "two contents"}`,
        "Give each file either content (text) or contentBase64."
      )
    }
    if (paths.has(path)) return refuse(`the file ${path} is there twice`, "Give each path once.")
    paths.add(path)
    made.push({ path, content: contentBase64 ?? utf8.encode(content), executable })
  }
  for (const path of paths) {
    const blocking = ancestors(path).find((ancestor) => paths.has(ancestor))
    if (blocking !== undefined) {
      return refuse(`${blocking} is a file, and ${path} needs it to be a directory`, "Rename one of the two.")
    }
  }
  return Result.succeed(made)
}

/** The directories above a path, the nearest last: `a/b/c` lies in `a` and `a/b`. */
export const ancestors = (path: string): ReadonlyArray<string> => {
  const parts = path.split("/")
  return parts.slice(1).map((_, index) => parts.slice(0, index + 1).join("/"))
}

/** The bytes a phase reads from its descriptor 0. */
export const standardInput = (inputs: {
  readonly stdin?: string
  readonly stdinBase64?: Uint8Array
}): Result.Result<Uint8Array, Refusal> =>
  inputs.stdin !== undefined && inputs.stdinBase64 !== undefined
    ? Result.fail({ reason: "there are two standard inputs", remedy: "Give either stdin (text) or stdinBase64." })
    : Result.succeed(inputs.stdinBase64 ?? utf8.encode(inputs.stdin ?? ""))

/** The whole environment of a phase: later ones replace earlier ones. */
export const environment = (...layers: ReadonlyArray<Readonly<Record<string, string>> | undefined>) =>
  Object.assign({}, baseEnv, ...layers) as Record<string, string>
