/** The languages of `code`: their toolchains, and how sources become a compile and a run phase. One row each. */
import { Result } from "effect"
import type { ProgramFile } from "../schemas/Program.ts"
import type { Refusal } from "./Inputs.ts"

/** What a language is asked to make commands for. All paths are relative to the workspace, the phases' cwd. */
export interface Sources {
  /** The compiler or interpreter of the chosen variant. */
  readonly tool: string
  readonly files: ReadonlyArray<ProgramFile>
  /** The file to begin with, if the job named one. It is among `files`. */
  readonly entry: string | undefined
  readonly compilerArgs: ReadonlyArray<string>
  /** A name no file has, for what the compiler makes. */
  readonly program: string
}

/** Commands without the job's own arguments and variables. */
export interface Commands {
  readonly compile?: { readonly argv: NonEmptyStrings; readonly env: Readonly<Record<string, string>> }
  readonly run: NonEmptyStrings
  /** `Program.products`: all that the compile command leaves. Absent: with these options it may leave other files too. */
  readonly products?: NonEmptyStrings
}

export type NonEmptyStrings = readonly [string, ...Array<string>]

export interface Language {
  /** Names a job can give, each with its tool; the first is the default. Tools are looked up in the PATH inside. */
  readonly variants: ReadonlyMap<string, string>
  /** Where `source` is put. */
  readonly mainFile: string
  /** Whether `entry` and `compilerArgs` mean anything here. */
  readonly takesEntry: boolean
  readonly takesCompilerArgs: boolean
  readonly commands: (sources: Sources) => Result.Result<Commands, Refusal>
}

/** No tool must take a file's name for an option (`-x`) or a list of options (`@x`). */
const asOperand = (path: string) => (/^[A-Za-z0-9_.]/.test(path) ? path : `./${path}`)

const directoryOf = (path: string) => path.split("/").slice(0, -1).join("/")

/**
 * Options of gcc and clang that leave no file beside the program and depend on nothing but sources and compiler: others may
 * (`-save-temps`, `--coverage`, `-march=native`), so programs compiled with any of them are not kept.
 */
const plainNative = new RegExp(
  `^(${
    [
      "[^-@].*",
      "-[DUIlL].*",
      "-O[0-3sgz]?",
      "-Ofast",
      "-g[0-3]?",
      "-std=.*",
      "-W(?![alp],)[A-Za-z][A-Za-z0-9+=-]*",
      "-[wsx]",
      "-(pedantic|pedantic-errors|ansi|pthread|static|include|isystem)",
      "-f(sanitize=[a-z,]+|no-[a-z-]+|omit-frame-pointer|stack-protector[a-z-]*|PIC|PIE|pic|pie|openmp|wrapv|trapv)",
      "-f(strict-aliasing|fast-math|lto|permissive|concepts|coroutines|exceptions|rtti|inline-functions|unroll-loops)",
      "-f((un)?signed-char|short-enums|max-errors=[0-9]+|template-depth=[0-9]+|constexpr-[a-z-]+=[0-9]+)",
      "-m(32|64|avx2?|fma|bmi2?|popcnt|sse[0-9.]*)"
    ].join("|")
  })$`
)

/** The same of `go build`. */
const plainGo = /^(-trimpath|-v|-a|-tags=[\w.,]+|-ldflags=(-[sw]|-X [^\s-]\S*)( (-[sw]|-X [^\s-]\S*))*)$/

const productsOf = (
  made: NonEmptyStrings,
  plain: RegExp,
  compilerArgs: ReadonlyArray<string>
): { readonly products?: NonEmptyStrings } => compilerArgs.every((arg) => plain.test(arg)) ? { products: made } : {}

/** One compiler call over all sources; headers are found from the workspace's root. */
const native = (
  what: string,
  endings: ReadonlyArray<string>
): Language["commands"] =>
({ compilerArgs, files, program, tool }) => {
  const sources = files.map((file) => file.path).filter((path) => endings.some((ending) => path.endsWith(ending)))
    .map(asOperand)
  return sources.length === 0
    ? Result.fail({
      reason: `none of the files is a ${what} source`,
      remedy: `The name of a source ends with ${endings.join(", ")}.`
    })
    : Result.succeed({
      // The job's options come after the sources, where libraries must be.
      compile: { argv: [tool, "-O2", "-I.", "-o", program, ...sources, ...compilerArgs, "-lm"], env: {} },
      run: [`./${program}`],
      ...productsOf([program], plainNative, compilerArgs)
    })
}

const python: Language["commands"] = ({ entry, files, tool }) => {
  const only = files.filter((file) => file.path.endsWith(".py"))
  const start = entry ?? files.find((file) => file.path === "main.py")?.path
    ?? (only.length === 1 ? only[0]?.path : undefined)
  return start === undefined
    ? Result.fail({ reason: "which file is to be run is not clear", remedy: "Name one main.py, or give entry." })
    : Result.succeed({ run: [tool, asOperand(start)] })
}

/**
 * Go needs absolute cache directories, and what it leaves in them would count as the run phase's memory: so they are
 * made below TMPDIR and removed at once.
 */
const goBuild = [
  "dir=$(mktemp -d) || exit 1",
  "export GOCACHE=\"$dir/cache\" GOPATH=\"$dir/path\" XDG_CONFIG_HOME=\"$dir/config\"",
  "go \"$@\"",
  "code=$?",
  "rm -rf \"$dir\"",
  "exit $code"
].join("\n")

/** A module (`go.mod` in the root; `vendor/` is used when it is there), or the loose files of one directory. */
const go: Language["commands"] = ({ compilerArgs, entry, files, program }) => {
  const has = (path: string) => files.some((file) => file.path === path)
  const directory = entry === undefined ? "" : directoryOf(entry)
  const module = has("go.mod")
  const loose = files.map((file) => file.path).filter((path) =>
    directoryOf(path) === directory && path.endsWith(".go") && !path.endsWith("_test.go")
  )
  if (!module && loose.length === 0) {
    return Result.fail({
      reason: `there is neither a go.mod nor a Go source in ${directory === "" ? "the root" : directory}`,
      remedy: "Add go.mod, or name a file of the main package as entry."
    })
  }
  const packages = module ? [directory === "" ? "." : `./${directory}`] : loose.map(asOperand)
  // With `-mod=mod` the build brings these up to date.
  const updated = module ? ["go.mod", "go.sum"].filter(has) : []
  return Result.succeed({
    compile: {
      argv: ["/bin/sh", "-c", goBuild, "go", "build", "-o", program, ...compilerArgs, ...packages],
      env: {
        CGO_ENABLED: "0",
        // Nothing is fetched: neither modules nor another toolchain, which a go.mod could ask for.
        GOPROXY: "off",
        GOSUMDB: "off",
        GOTOOLCHAIN: "local",
        GOENV: "off",
        GO111MODULE: "on",
        GOFLAGS: module && !has("vendor/modules.txt") ? "-mod=mod -buildvcs=false" : "-buildvcs=false"
      }
    },
    run: [`./${program}`],
    ...productsOf([program, ...updated], plainGo, compilerArgs)
  })
}

export const languages = {
  c: {
    variants: new Map([["gcc", "gcc"], ["clang", "clang"]]),
    mainFile: "main.c",
    takesEntry: false,
    takesCompilerArgs: true,
    commands: native("C", [".c"])
  },
  cpp: {
    variants: new Map([["g++", "g++"], ["clang++", "clang++"], ["cpp", "g++"], ["gcc", "g++"], ["clang", "clang++"]]),
    mainFile: "main.cpp",
    takesEntry: false,
    takesCompilerArgs: true,
    commands: native("C++", [".cpp", ".cc", ".cxx", ".c++", ".cp", ".C", ".c"])
  },
  python: {
    variants: new Map([["cpython3", "python3"], ["python3", "python3"]]),
    mainFile: "main.py",
    takesEntry: true,
    takesCompilerArgs: false,
    commands: python
  },
  go: {
    variants: new Map([["go", "go"], ["vanilla", "go"]]),
    mainFile: "main.go",
    takesEntry: true,
    takesCompilerArgs: true,
    commands: go
  }
} as const satisfies Readonly<Record<string, Language>>

export type LanguageName = keyof typeof languages

/** As a job names them. */
export const languageNames = Object.keys(languages) as ReadonlyArray<LanguageName>
