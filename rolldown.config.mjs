// How dist is bundled; scripts/build runs this and adds the launchers and native programs.
import { existsSync } from "node:fs"
import { builtinModules } from "node:module"
import { defineConfig } from "rolldown"

// A worker thread is started by file name, so it has to be an entry of its own.
const workers = { sqliteWorker: "src/layers/journal/sqliteWorker.ts" }

export default defineConfig({
  input: {
    main: "src/main.ts",
    ...Object.fromEntries(Object.entries(workers).filter(([, file]) => existsSync(file)))
  },
  platform: "node",
  external: [/^node:/, ...builtinModules],
  output: {
    dir: process.env.STOKER_BUNDLE_DIR ?? "dist",
    format: "esm",
    // All in one folder: `new URL("./native/guest", import.meta.url)` then means the same in every chunk.
    entryFileNames: "[name].mjs",
    chunkFileNames: "[name]-[hash].mjs",
    minify: "dce-only"
  }
})
