/** What a function becomes: files, then phases. Pure data; a driver knows nothing else of a job. */
import { Schema } from "effect"
import { Container } from "./Container.ts"
import { ExecString } from "./ExecString.ts"
import { FunctionName } from "./Ids.ts"
import { Limits } from "./Limits.ts"

/** A path inside the workspace: relative, at most 4 KiB, no empty, `.` or `..` component, no NUL. */
export const WorkPath = Schema.String.check(
  Schema.isBetweenLength(1, 4095),
  Schema.makeFilter(
    (path: string) =>
      !path.includes("\u0000") && path.split("/").every((part) => part !== "" && part !== "." && part !== ".."),
    { expected: "a relative path inside the workspace, without '.', '..' or empty parts" }
  )
).pipe(Schema.brand("WorkPath"))
export type WorkPath = typeof WorkPath.Type

/** So many names at most; all of them together at most so many bytes (UTF-8): they come back in every message. */
export const mostArtefacts = 1000
const mostArtefactNames = 65_536

const utf8 = new TextEncoder()

/** Where a file to bring back lies: a path inside the workspace without control characters, which end up on screens. */
export const ArtefactPath = WorkPath.check(
  Schema.makeFilter((path: string) => !/\p{Cc}/u.test(path), { expected: "a path without control characters" })
)

/** Files to bring back: each once, and not too many. A name that matches several is none: names only. */
export const ArtefactPaths = Schema.Array(ArtefactPath).check(
  Schema.isMaxLength(mostArtefacts, { expected: `at most ${mostArtefacts} artefacts` }),
  Schema.makeFilter((paths: ReadonlyArray<string>) => new Set(paths).size === paths.length, {
    expected: "each artefact once"
  }),
  Schema.makeFilter(
    (paths: ReadonlyArray<string>) =>
      paths.reduce((sum, path) => sum + utf8.encode(path).length, 0) <= mostArtefactNames,
    { expected: `names of artefacts of ${mostArtefactNames} bytes together` }
  )
)

/** A file put into the workspace before the first phase: mode 0755 if executable, else 0644. */
export const ProgramFile = Schema.Struct({
  path: WorkPath,
  content: Schema.Uint8ArrayFromBase64,
  executable: Schema.Boolean
})
export type ProgramFile = typeof ProgramFile.Type

/** `compile` makes what `run` runs; a program has at most one of each kind, compile first. */
export const PhaseName = Schema.Literals(["compile", "run"])
export type PhaseName = typeof PhaseName.Type

/** One command and what it may use. */
export const Phase = Schema.Struct({
  name: PhaseName,
  /** argv[0] is looked up in the PATH of `env`. */
  argv: Schema.NonEmptyArray(ExecString),
  /** The whole environment: nothing is inherited. */
  env: Schema.Record(Schema.String, ExecString),
  stdin: Schema.Uint8ArrayFromBase64,
  limits: Limits
})
export type Phase = typeof Phase.Type

/** A call of a function that the sandbox's function host carries out. */
export const Call = Schema.Struct({ function: FunctionName, args: Schema.Json })
export type Call = typeof Call.Type

/** A whole job as one source file, for sandboxes that can be told nothing else: it is compiled, if it has to be, and run. */
export const Source = Schema.Struct({
  language: Schema.String,
  code: Schema.String,
  /** As the job named it. */
  variant: Schema.optionalKey(Schema.String)
})
export type Source = typeof Source.Type

/** All that is run for one job. */
export const Program = Schema.Struct({
  files: Schema.Array(ProgramFile),
  phases: Schema.NonEmptyArray(Phase),
  /** Files to bring back after the last phase, whatever its exit. */
  artefacts: ArtefactPaths,
  /**
   * The files a successful compile phase makes out of `files`, its argv and its env alone, and all that the run phase needs
   * of it: with them, compiling once is enough for the same sources. Absent: it is done each time. Put back they are
   * executable (0755), but for those that are among `files`, which keep their mode.
   */
  products: Schema.optionalKey(Schema.NonEmptyArray(WorkPath)),
  /** The one phase is this call, in a function host: one that waits in the sandbox, or one that is started there. */
  call: Schema.optionalKey(Call),
  /** The one phase is this container: its argv stands for what the image runs. A cluster's, or a sandbox's whose root it is. */
  container: Schema.optionalKey(Container),
  /** All of it is this: files and phases say the same. Absent: the job is more than that. */
  source: Schema.optionalKey(Source)
})
export type Program = typeof Program.Type

/** Environment every phase begins with. */
export const baseEnv: Readonly<Record<string, string>> = {
  PATH: "/usr/local/bin:/usr/bin:/bin:/usr/local/go/bin",
  HOME: "/work",
  TMPDIR: "/tmp",
  LANG: "C.UTF-8"
}

/** What `ofRun` takes. Text is UTF-8. */
export interface RunOptions {
  /** Program and arguments; the program is looked up in the PATH of the environment. */
  readonly argv: readonly [string, ...Array<string>]
  /** Usually the `run` limits a function is asked with. */
  readonly limits: Limits
  /** Files of the workspace by their path in it. They can be read and written, not executed. */
  readonly files?: Readonly<Record<string, string | Uint8Array>>
  /** On top of `baseEnv`; the same name replaces. */
  readonly env?: Readonly<Record<string, string>>
  readonly stdin?: string | Uint8Array
  /** Files to bring back. */
  readonly artefacts?: ReadonlyArray<string>
}

/**
 * A program of one phase, `run`. Throws when a path or an argument cannot be one (`WorkPath`, `ArtefactPaths`,
 * `ExecString`): a function that takes them from its job has them decoded by its Schema.
 */
export const ofRun = ({ argv, artefacts = [], env, files = {}, limits, stdin = "" }: RunOptions): Program => {
  const bytes = (content: string | Uint8Array) => typeof content === "string" ? utf8.encode(content) : content
  return Program.make({
    files: Object.entries(files).map(([path, content]) => ({
      path: WorkPath.make(path),
      content: bytes(content),
      executable: false
    })),
    phases: [{ name: "run", argv, env: { ...baseEnv, ...env }, stdin: bytes(stdin), limits }],
    artefacts: artefacts.map((path) => ArtefactPath.make(path))
  })
}

/** argv[0] of a phase that is a call: the executor knows what it is in the sandbox. */
export const functionHost = "stoker-function-host"

/** A program that is one call. Arguments that are no JSON are none: they have been decoded before. */
export const ofInvocation = (
  call: { readonly function: FunctionName; readonly args: unknown },
  limits: Limits
): Program => ({
  files: [],
  phases: [{ name: "run", argv: [functionHost], env: baseEnv, stdin: new Uint8Array(), limits }],
  artefacts: [],
  call: Call.make({ function: call.function, args: call.args as Schema.Json })
})
