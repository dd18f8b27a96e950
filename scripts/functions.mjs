// Writes the bundle of the function host with the built-in functions. usage: scripts/functions.mjs FILE
import { Effect } from "effect"
import { writeFileSync } from "node:fs"
import { bundle } from "../src/layers/functions/Bundler.ts"

writeFileSync(process.argv[2], await Effect.runPromise(bundle([])))
