/** `code`: compiles sources, where the language has it so, and runs the result. */
import { Effect, Result, Schema } from "effect"
import { ExecString } from "../schemas/ExecString.ts"
import { InvalidArguments, make, type PhaseLimits } from "../schemas/Function.ts"
import { type Phase, type Program, type ProgramFile, WorkPath } from "../schemas/Program.ts"
import {
  ancestors,
  environment,
  field,
  inputFields,
  InputFile,
  optional,
  programFiles,
  standardInput,
  textFile
} from "./Inputs.ts"
import { type Language, languageNames, languages } from "./Languages.ts"

/** The arguments of `code`. Exactly one of `source` and `files`. */
export const CodeArgs = Schema.Struct({
  language: field(Schema.Literals(languageNames), "Language", "what the sources are written in"),
  variant: optional(Schema.String, "Variant", "the compiler or interpreter (default: the language's usual one)"),
  source: optional(Schema.String, "Source", "one source file's text"),
  files: optional(Schema.NonEmptyArray(InputFile), "Files", "source files, and others for the workspace"),
  entry: optional(WorkPath, "Entry", "Python: the file to run; Go: a file of the package to build"),
  ...inputFields,
  args: optional(Schema.Array(ExecString), "Arguments", "for the program"),
  /** The compiler runs in the same sandbox as the program, so it can do no more than the program can. */
  compilerArgs: optional(Schema.Array(ExecString), "Compiler arguments", "for the compiler"),
  cache: optional(
    Schema.Boolean,
    "Cache",
    "false: compiled although the same owner had the same sources compiled before, for programs that tell when that was"
  )
})
export type CodeArgs = typeof CodeArgs.Type

const invalid = (reason: string, remedy: string) => new InvalidArguments({ function: "code", reason, remedy })

const orInvalid = <A>(result: Result.Result<A, { readonly reason: string; readonly remedy: string }>) =>
  Result.mapError(result, ({ reason, remedy }) => invalid(reason, remedy))

const toolOf = (args: CodeArgs, { variants }: Language) => {
  const [usual] = variants.keys()
  const tool = variants.get(args.variant ?? usual ?? "")
  return tool === undefined
    ? Result.fail(invalid(
      `${args.language} has no variant ${JSON.stringify(args.variant)}`,
      `Use one of: ${[...variants.keys()].join(", ")}; or leave it out.`
    ))
    : Result.succeed(tool)
}

const sourcesOf = (
  args: CodeArgs,
  { mainFile }: Language
): Result.Result<ReadonlyArray<ProgramFile>, InvalidArguments> => {
  if ((args.source === undefined) === (args.files === undefined)) {
    return Result.fail(invalid(
      args.source === undefined ? "there is nothing to run" : "there are both source and files",
      "Give either source (one file's text) or files."
    ))
  }
  return args.source === undefined
    ? orInvalid(programFiles(args.files ?? []))
    : Result.succeed([textFile(WorkPath.make(mainFile), args.source)])
}

const checkOptions = (args: CodeArgs, language: Language, files: ReadonlyArray<ProgramFile>) => {
  if (args.entry !== undefined && !language.takesEntry) {
    return Result.fail(
      invalid(`entry means nothing for ${args.language}`, "Leave it out: all sources are compiled together.")
    )
  }
  if (args.compilerArgs !== undefined && args.compilerArgs.length > 0 && !language.takesCompilerArgs) {
    return Result.fail(invalid(`${args.language} has no compiler`, "Leave compilerArgs out."))
  }
  return args.entry !== undefined && !files.some((file) => file.path === args.entry)
    ? Result.fail(invalid(`entry ${args.entry} is not among the files`, "Name one of the files."))
    : Result.void
}

/** `program`, or with a number if the job has files of that name. */
const freeName = (files: ReadonlyArray<ProgramFile>) => {
  const taken = new Set(files.flatMap(({ path }) => [path, ...ancestors(path)]))
  let name = "program"
  for (let n = 1; taken.has(name); n++) name = `program-${n}`
  return name
}

/** The job as one source file, if it is no more than that, and for the language's usual tool. */
const sourceOf = (args: CodeArgs, { variants }: Language, stdin: Uint8Array) => {
  const { artefacts = [], compilerArgs = [], env = {}, language, source, variant } = args
  const [usual] = variants.values()
  const isMore = stdin.length > 0 || (args.args ?? []).length > 0 || compilerArgs.length > 0 || artefacts.length > 0 ||
    Object.keys(env).length > 0
  return source === undefined || isMore || (variant !== undefined && variants.get(variant) !== usual)
    ? {}
    : { source: { language, code: source, ...(variant === undefined ? {} : { variant }) } }
}

const toProgram = (args: CodeArgs, limits: PhaseLimits): Result.Result<Program, InvalidArguments> =>
  Result.gen(function*() {
    const language: Language = languages[args.language]
    const tool = yield* toolOf(args, language)
    const files = yield* sourcesOf(args, language)
    yield* checkOptions(args, language, files)
    const stdin = yield* orInvalid(standardInput(args))
    const { compile, products, run } = yield* orInvalid(language.commands({
      tool,
      files,
      entry: args.entry,
      compilerArgs: args.compilerArgs ?? [],
      program: freeName(files)
    }))
    const runPhase: Phase = {
      name: "run",
      argv: [...run, ...(args.args ?? [])],
      env: environment(args.env),
      stdin,
      limits: limits.run
    }
    const { artefacts = [] } = args
    const source = sourceOf(args, language, stdin)
    if (compile === undefined) return { files, phases: [runPhase], artefacts, ...source }
    const compilePhase: Phase = {
      name: "compile",
      argv: compile.argv,
      env: environment(compile.env),
      stdin: new Uint8Array(),
      limits: limits.compile
    }
    const [product, ...others] = (args.cache === false ? undefined : products)?.map((path) => WorkPath.make(path)) ?? []
    return {
      files,
      phases: [compilePhase, runPhase],
      artefacts,
      ...source,
      ...(product === undefined ? {} : { products: [product, ...others] as const })
    }
  })

/** Runs source code. A compile phase has the class's whole limits, the run phase the job's. */
export const code = make({
  name: "code",
  description: `runs source code in one of: ${
    languageNames.join(", ")
  }; compiles it first where the language needs it.`,
  args: CodeArgs,
  program: (args, limits) => Effect.fromResult(toProgram(args, limits))
})
