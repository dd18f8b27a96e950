// How dist is bundled; scripts/build runs this and adds the launchers and native programs.
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { builtinModules } from "node:module"
import { join } from "node:path"
import { defineConfig } from "rolldown"

// A worker thread is started by file name, so it has to be an entry of its own.
const workers = { sqliteWorker: "src/layers/journal/sqliteWorker.ts" }

/** Licences ask for their text to go with copies: those of all packages of which something is in the bundle. */
const licences = {
  name: "licences",
  generateBundle(_, bundle) {
    const modules = Object.values(bundle).flatMap((chunk) => chunk.moduleIds ?? [])
    const folders = modules.flatMap((id) => /^.*\/node_modules\/(?:@[^/]+\/)?[^/]+/.exec(id)?.[0] ?? [])
    const texts = [...new Set(folders)].toSorted().map((folder) => {
      const { license, name, version } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"))
      const file = readdirSync(folder).find((each) => /^licen[cs]e/i.test(each))
      const text = file === undefined ? `Licence: ${license}` : readFileSync(join(folder, file), "utf8").trim()
      return `${name} ${version}\n\n${text}\n`
    })
    this.emitFile({ type: "asset", fileName: "THIRD-PARTY.txt", source: texts.join(`\n${"-".repeat(80)}\n\n`) })
  }
}

export default defineConfig({
  input: {
    main: "src/main.ts",
    ...Object.fromEntries(Object.entries(workers).filter(([, file]) => existsSync(file)))
  },
  platform: "node",
  plugins: [licences],
  // It is native, and only bundles functions at a worker's start.
  external: [/^node:/, /^rolldown(?:\/|$)/, ...builtinModules],
  output: {
    dir: process.env.STOKER_BUNDLE_DIR ?? "dist",
    format: "esm",
    // All in one folder: `new URL("./native/guest", import.meta.url)` then means the same in every chunk.
    entryFileNames: "[name].mjs",
    chunkFileNames: "[name]-[hash].mjs",
    minify: "dce-only"
  }
})
