/** Makes one file of the host loop and modules of functions. Loaded only where a worker has functions of its own. */
import { Effect } from "effect"
import { createRequire } from "node:module"
import { fileURLToPath } from "node:url"
import type { Plugin } from "rolldown"
import { built } from "../Built.ts"
import { FunctionsRefused } from "./FunctionHost.ts"

/** A module of ours, wherever we run: `guest/FunctionHost`. */
const own = (module: string) =>
  fileURLToPath(
    {
      source: new URL(`../../${module}.ts`, import.meta.url),
      modules: new URL(`../../${module}.js`, import.meta.url),
      bundle: new URL(`./lib/${module}.js`, import.meta.url)
    }[built]
  )

const ENTRY = "\u0000stoker-functions"

/** In the order of `files`, after the built-in ones. */
const entryOf = (files: ReadonlyArray<string>) =>
  [
    `import { hosted } from ${JSON.stringify(own("functions/Hosted"))}`,
    ...files.map((file, index) => `import * as module${index} from ${JSON.stringify(file)}`),
    `export { describe, serve } from ${JSON.stringify(own("guest/FunctionHost"))}`,
    `export const modules = [{ default: hosted }, ${files.map((_, index) => `module${index}`).join(", ")}]`
  ].join("\n")

/** One `effect` for all, which is the worker's version; and of `stoker` only what functions are made of. */
const resolver = (entry: string): Plugin => ({
  name: "stoker-functions",
  async resolveId(source, importer) {
    if (source === ENTRY) return ENTRY
    if (source === "stoker") return own("guest/stoker")
    if (source !== "effect" && !source.startsWith("effect/")) return null
    const ours = own("guest/FunctionHost")
    return importer === ours ? null : this.resolve(source, ours, { skipSelf: true })
  },
  load: (id) => id === ENTRY ? entry : null
})

// oxlint-disable-next-line no-control-regex
const plain = (text: string) => text.replaceAll(/\u001B\[[0-9;]*m/g, "")

/** What went wrong, in the bundler's words, on one line. */
const said = (error: unknown) => {
  const first: unknown = error instanceof Error && "errors" in error && Array.isArray(error.errors)
    ? error.errors[0]
    : error
  const text = first instanceof Error ? first.message : String(first)
  return plain(text).split("\n").map((line) => line.trim()).filter((line) => line !== "").join(" ")
}

/** The bundle's text. */
export const bundle = Effect.fn("Bundler.bundle")(function*(files: ReadonlyArray<string>) {
  return yield* Effect.tryPromise({
    try: async () => {
      const { rolldown } = await import("rolldown")
      await using made = await rolldown({
        input: ENTRY,
        platform: "node",
        plugins: [resolver(entryOf(files))],
        onLog: () => {}
      })
      const { output } = await made.generate({
        format: "cjs",
        codeSplitting: false,
        minify: "dce-only",
        // Half of the text, which every host reads.
        comments: { legal: true, annotation: false, jsdoc: false },
        exports: "named"
      })
      const [chunk] = output
      return chunk.code
    },
    catch: (cause) =>
      new FunctionsRefused({
        file: files.join(", "),
        reason: `they cannot be bundled: ${said(cause)}`,
        remedy: "Correct the file; what it imports has to be installed beside it.",
        cause
      })
  })
})

/** A module in the worker's own process. */
export const load = (file: string): unknown => createRequire(import.meta.url)(file)
