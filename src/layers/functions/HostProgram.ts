/**
 * What a function host is as files: `functions.cjs`, one bundle of the host loop and all functions; `functions.cache`, V8's
 * code for it, if it has been made; and `host.cjs`, which starts the one with the help of the other.
 */
import type { Limits } from "../../schemas/Limits.ts"

export const BUNDLE = "functions.cjs"
export const CACHE = "functions.cache"
export const START = "host.cjs"

/**
 * V8's code saves a third of a start. It is bound to Node's version, to the bundle's length and to V8's flags; one that does not fit is not
 * used. `host.cjs probe OUT [CACHE]` writes what the modules define to OUT, and V8's code to CACHE.
 */
export const startSource = `"use strict"
const fs = require("node:fs")
const path = require("node:path")
const vm = require("node:vm")
const [, , task, out, cache] = process.argv
const file = path.join(__dirname, "${BUNDLE}")
let cachedData
if (task !== "probe") try { cachedData = fs.readFileSync(path.join(__dirname, "${CACHE}")) } catch {}
const source = "(function (exports, require, module, __filename, __dirname) { " + fs.readFileSync(file, "utf8") + "\\n})"
const script = new vm.Script(source, {
  filename: file,
  cachedData,
  importModuleDynamically: vm.constants.USE_MAIN_CONTEXT_DEFAULT_LOADER
})
const module_ = { exports: {} }
script.runInThisContext()(module_.exports, require("node:module").createRequire(file), module_, file, __dirname)
const { describe, modules, serve } = module_.exports
if (task === "probe") {
  describe(modules).then((names) => {
    if (cache !== undefined) fs.writeFileSync(cache, script.createCachedData())
    fs.writeFileSync(out, JSON.stringify(names))
    process.exit(0)
  })
} else serve(modules, task === "wait")
`

const MiB = 1024 * 1024

/**
 * The heap may grow as far as the phase's memory: so the kernel's limit comes first, and a job that takes too much is told as
 * out of memory. Nobody opens an inspector by a signal.
 */
export const hostFlags = ({ memoryBytes }: Pick<Limits, "memoryBytes">): ReadonlyArray<string> => [
  `--max-old-space-size=${Math.max(16, Math.floor(memoryBytes / MiB))}`,
  "--disable-sigusr1",
  // A handler that imports something while it runs would have Node's opinion of that in its job's output.
  "--disable-warning=ExperimentalWarning"
]
