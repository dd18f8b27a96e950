/**
 * Modules of functions, made ready for a worker: bundled with the host loop, tried in a process of their own, kept in the
 * state directory by their content, and only then loaded here, because arguments are checked before a job is taken.
 */
import { Effect, Layer } from "effect"
import { spawn } from "node:child_process"
import { createHash } from "node:crypto"
import { existsSync } from "node:fs"
import * as fs from "node:fs/promises"
import { join, resolve } from "node:path"
import { fileURLToPath } from "node:url"
import { definitionsOf } from "../../guest/FunctionModules.ts"
import type { Definition } from "../../schemas/Function.ts"
import { built } from "../Built.ts"
import type { DuplicateName } from "../config/DuplicateName.ts"
import * as BundleStore from "./BundleStore.ts"
import { FunctionHost, FunctionsRefused } from "./FunctionHost.ts"
import { type Functions, layer as layerFunctions } from "./Functions.ts"
import * as HostProgram from "./HostProgram.ts"

/** A module that takes longer to load, does not. */
const PROBE_MS = 10_000

/** Of what it says the last characters are told. */
const MOST_SAID = 2000

/** The bundle of the built-in functions, made by scripts/build. In a checkout it would be older than its sources. */
const prebuilt = {
  source: undefined,
  modules: fileURLToPath(new URL("../../../", import.meta.url)),
  bundle: fileURLToPath(new URL("./", import.meta.url))
}[built]

export interface Loaded {
  /** Of the files. */
  readonly definitions: ReadonlyArray<Definition>
  readonly host: FunctionHost["Service"]
}

const refused = (files: ReadonlyArray<string>, reason: string, remedy: string, cause?: unknown) =>
  new FunctionsRefused({
    file: files.join(", "),
    reason,
    remedy,
    ...(cause === undefined ? {} : { cause })
  })

/** How a child ended, and what it said. */
interface Tried {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly said: string
  readonly isLate: boolean
}

/** Loads the bundle in a child, with no more of our environment than where programs are. It is killed when we lose patience. */
const tryOut = (directory: string, args: ReadonlyArray<string>) =>
  Effect.callback<Tried>((resume) => {
    const start = join(directory, HostProgram.START)
    const child = spawn(process.execPath, ["--disable-sigusr1", start, "probe", ...args], {
      cwd: directory,
      env: { PATH: process.env["PATH"] ?? "", LANG: "C.UTF-8" },
      stdio: ["ignore", "pipe", "pipe"]
    })
    let said = ""
    let isLate = false
    const hear = (bytes: Buffer) => {
      said = (said + bytes.toString("utf8")).slice(-MOST_SAID)
    }
    child.stdout.on("data", hear)
    child.stderr.on("data", hear)
    const timer = setTimeout(() => {
      isLate = true
      child.kill("SIGKILL")
    }, PROBE_MS)
    child.on("error", (cause) => {
      clearTimeout(timer)
      resume(Effect.succeed({ code: null, signal: null, said: cause.message, isLate }))
    })
    // Not "close": what it started may hold its output open.
    child.on("exit", (code, signal) => {
      clearTimeout(timer)
      child.stdout.destroy()
      child.stderr.destroy()
      resume(Effect.succeed({ code, signal, said: said.trim(), isLate }))
    })
    return Effect.sync(() => {
      clearTimeout(timer)
      child.kill("SIGKILL")
    })
  })

/** The line that says most: an error's own, without the frames below it. */
const gist = (said: string) => {
  const lines = said.split("\n").map((line) => line.trim())
  return lines.find((line) => /^\w*(?:Error|Exception)\b.*:/.test(line)) ?? lines.findLast((line) => line !== "") ?? ""
}

/** Names by module, the built-in ones first; or why there are none. */
const probe = Effect.fnUntraced(function*(files: ReadonlyArray<string>, directory: string, cache: string | undefined) {
  const out = join(directory, `names-${process.pid}.json`)
  yield* Effect.promise(() => fs.rm(out, { force: true }))
  const tried = yield* tryOut(directory, [out, ...(cache === undefined ? [] : [cache])])
  const text = yield* Effect.promise(() => fs.readFile(out, "utf8").catch(() => undefined))
  yield* Effect.promise(() => fs.rm(out, { force: true }))
  const { code, isLate, said, signal } = tried
  if (isLate) {
    return yield* refused(
      files,
      `it is not loaded after ${PROBE_MS / 1000} s`,
      "A module of functions only defines them: what takes time belongs into a handler."
    )
  }
  if (code !== 0) {
    return yield* refused(
      files,
      `it cannot be loaded: ${gist(said) || (signal === null ? `code ${code}` : signal)}`,
      "Correct the file: `node FILE` shows where it fails."
    )
  }
  if (text === undefined) {
    return yield* refused(
      files,
      "it ends the process that loads it",
      "A module of functions only defines them: take the call of process.exit out of it."
    )
  }
  return JSON.parse(text) as ReadonlyArray<ReadonlyArray<string>>
})

/** Nobody knows what another Node makes of V8's code, nor another start of the bundle. */
const nameOf = (code: string) =>
  createHash("sha256").update(`${process.version} ${process.arch}\n${HostProgram.startSource}\n${code}`).digest("hex")
    .slice(0, 32)

/** Each file gives something, and nothing twice. */
const checkNames = Effect.fnUntraced(function*(
  files: ReadonlyArray<string>,
  names: ReadonlyArray<ReadonlyArray<string>>,
  taken: ReadonlySet<string>
) {
  const [own = [], ...given] = names
  const seen = new Map([...taken, ...own].map((name) => [name, "a built-in function"]))
  for (const [index, file] of files.entries()) {
    const found = given[index] ?? []
    if (found.length === 0) {
      return yield* refused(
        [file],
        "it exports no function",
        "Export what Function.make gives back, by name or as a default list."
      )
    }
    for (const name of found) {
      const other = seen.get(name)
      if (other !== undefined) {
        return yield* refused(
          [file],
          `its function ${name} has the name of ${other}`,
          "Give it another name, or leave it out."
        )
      }
      seen.set(name, other ?? `another one of ${file}`)
    }
  }
})

/**
 * Functions of `files` (absolute, or below the working directory) beside the built-in handlers; `taken` are names that are
 * used already.
 */
export const load = Effect.fn("FunctionFiles.load")(function*(options: {
  readonly files: ReadonlyArray<string>
  readonly stateDirectory: string
  readonly taken: ReadonlySet<string>
}): Effect.fn.Return<Loaded, FunctionsRefused> {
  const files = options.files.map((file) => resolve(file))
  for (const file of files) {
    if (existsSync(file)) continue
    return yield* refused([file], "there is no such file", "Give a file of TypeScript or JavaScript.")
  }
  const Bundler = yield* Effect.promise(() => import("./Bundler.ts"))
  const code = files.length === 0 && prebuilt !== undefined
    ? yield* Effect.tryPromise({
      try: () => fs.readFile(join(prebuilt, HostProgram.BUNDLE), "utf8"),
      catch: (cause) => refused([prebuilt], `${HostProgram.BUNDLE} is missing`, "Install the package anew.", cause)
    })
    : yield* Bundler.bundle(files)
  const directory = join(resolve(options.stateDirectory), "functions", nameOf(code))
  const isNew = !existsSync(directory)
  const place = isNew ? yield* BundleStore.make(directory, code) : directory
  // Ours alone are the same at every start. Somebody's own may do at this one what they did not do at the last.
  const isTried = !isNew && files.length === 0
  if (!isTried) {
    yield* Effect.gen(function*() {
      const names = yield* probe(files, place, isNew ? join(place, HostProgram.CACHE) : undefined)
      yield* checkNames(files, names, options.taken)
    }).pipe(
      Effect.tapError(() => isNew ? Effect.promise(() => fs.rm(place, { recursive: true, force: true })) : Effect.void)
    )
  }
  if (isNew) yield* BundleStore.settle(place, directory)
  const loaded = yield* Effect.try({
    try: () => Bundler.load(join(directory, HostProgram.BUNDLE)) as { readonly modules: ReadonlyArray<{}> },
    catch: (cause) =>
      refused(files, `it cannot be loaded here: ${String(cause)}`, "It depends on the process it is in.", cause)
  })
  const [own = [], ...given] = loaded.modules.map((module) => definitionsOf({ ...module }))
  const definitions = given.flat()
  const hosted = [...own, ...definitions].filter(({ handler }) => handler !== undefined)
  return { definitions, host: { node: process.execPath, directory, names: new Set(hosted.map(({ name }) => name)) } }
})

/**
 * The functions a worker has, `definitions` and those of `files`, and the host of those with a handler. Nothing is bundled
 * where there is none.
 */
export const layer = (
  { definitions, files, stateDirectory }: {
    readonly definitions: ReadonlyArray<Definition>
    readonly files: ReadonlyArray<string>
    readonly stateDirectory: string
  }
): Layer.Layer<Functions, FunctionsRefused | DuplicateName> =>
  Layer.unwrap(Effect.gen(function*() {
    const hosted = definitions.filter(({ handler }) => handler !== undefined)
    if (files.length === 0 && hosted.length === 0) return layerFunctions(definitions)
    const taken = new Set<string>(definitions.map(({ name }) => name))
    const loaded = yield* load({ files, stateDirectory, taken })
    yield* BundleStore.use(loaded.host.directory)
    const missing = hosted.find(({ name }) => !loaded.host.names.has(name))
    if (missing !== undefined) {
      return yield* refused(
        [`the worker's own list`],
        `the handler of ${missing.name} is nowhere a sandbox could find it`,
        "A handler runs from its file: give that as `functionFiles`, and leave the function out of `functions`."
      )
    }
    return Layer.merge(
      layerFunctions([...definitions, ...loaded.definitions]),
      Layer.succeed(FunctionHost, loaded.host)
    )
  }))
