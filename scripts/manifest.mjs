#!/usr/bin/env node
// The package.json that `npm pack` takes is a part of ours: whoever installs Stoker has no use for what builds and checks
// it, and would be given it as far as it is optional (144 MB). npm runs this before and after (prepack, postpack).
// usage: scripts/manifest.mjs publish|restore
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs"
import { join } from "node:path"

const root = join(import.meta.dirname, "..")
const manifest = join(root, "package.json")
const whole = join(root, "build", "package.json")

/** Fields of ours alone. */
const ours = ["allowScripts", "devDependencies", "scripts"]
/** Needed to work on Stoker, and optional only because it is not made for every machine. */
const tool = (name) => name.startsWith("@effect/tsgo") || name.startsWith("@bufbuild/buf")

const publish = () => {
  // One that is there already is what a broken-off `npm pack` left: package.json is the part.
  if (existsSync(whole)) restore()
  const text = readFileSync(manifest, "utf8")
  const part = JSON.parse(text)
  for (const field of ours) delete part[field]
  for (const name of Object.keys(part.optionalDependencies)) if (tool(name)) delete part.optionalDependencies[name]
  mkdirSync(join(root, "build"), { recursive: true })
  writeFileSync(whole, text)
  writeFileSync(manifest, `${JSON.stringify(part, null, 2)}\n`)
}

const restore = () => {
  if (existsSync(whole)) renameSync(whole, manifest)
}

const acts = { publish, restore }
const act = acts[process.argv[2]]
if (act === undefined) {
  console.error("usage: scripts/manifest.mjs publish|restore")
  process.exit(64)
}
act()
