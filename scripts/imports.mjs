#!/usr/bin/env node
// Who may know whom in src: the picture of ARCHITECTURE.md as data, checked over every import, types included.
// usage: scripts/imports.mjs [ROOT]   prints one line per violation and exits 1 if there is any.
// Own code because oxlint's no-restricted-imports sees specifiers, not the file they lead to, and its no-cycle leaves
// out what only types need.
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { dirname, join, relative, resolve } from "node:path"
import { parseAst } from "rolldown/parseAst"

/** The first folder below src (or a file right in it), and what it may import. "*" is everything in src. */
const mayImport = {
  schemas: ["schemas"],
  guest: ["schemas", "guest"],
  functions: ["schemas", "functions"],
  layers: ["schemas", "guest", "layers"],
  actors: ["schemas", "layers", "functions", "actors"],
  client: ["schemas", "layers", "client"],
  conformance: ["schemas", "layers", "conformance"],
  cli: ["*"],
  "main.ts": ["*"],
  "wiring.ts": ["*"],
  "wiringTest.ts": ["*"],
  "index.ts": ["*"],
  "client.ts": ["*"],
  "conformance.ts": ["*"],
  "testing.ts": ["*"]
}

/** Files that implement a driver; the group is the driver. Only wiring ("*" above) and the driver itself may name them. */
const driver = /^layers\/sandbox\/(process|oci|firecracker|qemu|microvm)/i
/** Other implementations, which actors reach through their tag. */
const implementation = /^layers\/.*Live\.ts$/
/** The one file outside src that wiring reads: for the version. */
const manifest = "../package.json"

const root = resolve(process.argv[2] ?? join(import.meta.dirname, ".."))
const src = join(root, "src")

/** Every import of a file: static, dynamic, re-export, `import("x").T`, and the module a `new URL("x.ts", ...)` names. */
const importsOf = (file) => {
  const text = readFileSync(file, "utf8")
  const found = []
  const add = (node) => {
    if (node?.type !== "Literal" || typeof node.value !== "string" || !node.value.startsWith(".")) return
    found.push({ specifier: node.value, line: text.slice(0, node.start).split("\n").length })
  }
  const walk = (node) => {
    if (Array.isArray(node)) return node.forEach(walk)
    if (node === null || typeof node !== "object") return
    if (/^(Import|Export|TSImport|TSExternal)/.test(node.type ?? "")) add(node.source ?? node.expression)
    if (node.type === "NewExpression" && node.callee.name === "URL" && /\.[cm]?[jt]s$/.test(node.arguments[0]?.value)) {
      add(node.arguments[0])
    }
    Object.values(node).forEach(walk)
  }
  walk(parseAst(text, { lang: "ts" }).body)
  return found
}

const areaOf = (path) => path.split("/")[0]
const driverOf = (path) => driver.exec(path)?.[1]?.toLowerCase()

/** Why `from` must not import `to` (both relative to src), or nothing. */
const verdict = (from, to) => {
  const allowed = mayImport[areaOf(from)]
  if (allowed === undefined) return `${areaOf(from)} has no row in scripts/imports.mjs: decide what it may import`
  const wiring = allowed[0] === "*"
  if (to.startsWith("..")) {
    return wiring && to === manifest ? undefined : "src imports nothing outside src"
  }
  if (wiring) return undefined
  if (!allowed.includes(areaOf(to))) return `${areaOf(from)} may import only ${allowed.join(", ")}`
  if (driverOf(to) !== undefined && driverOf(to) !== driverOf(from)) {
    return `${to} is a driver: ask for the contract in layers/sandbox, only wiring.ts, main.ts, index.ts and cli name a driver`
  }
  if (areaOf(from) === "actors" && implementation.test(to)) return `${to} is an implementation: ask for its tag`
  return undefined
}

/** One line per group of files that need each other, however long the way round (Tarjan). */
const cyclesOf = (graph) => {
  const cycles = []
  const seen = new Map()
  const stack = []
  const visit = (file) => {
    const state = { index: seen.size, low: seen.size, open: true }
    seen.set(file, state)
    stack.push(file)
    for (const next of graph.get(file) ?? []) {
      const other = seen.get(next)
      if (other === undefined) state.low = Math.min(state.low, visit(next).low)
      else if (other.open) state.low = Math.min(state.low, other.index)
    }
    if (state.low === state.index) {
      const group = stack.splice(stack.indexOf(file))
      for (const member of group) seen.get(member).open = false
      if (group.length > 1 || graph.get(file)?.includes(file)) cycles.push(group)
    }
    return state
  }
  for (const file of graph.keys()) if (!seen.has(file)) visit(file)
  return cycles
}

const files = existsSync(src)
  ? readdirSync(src, { recursive: true }).filter((name) => /\.[cm]?ts$/.test(name)).toSorted()
  : []
const problems = []
const graph = new Map()
for (const from of files) {
  const file = join(src, from)
  const targets = []
  for (const { line, specifier } of importsOf(file)) {
    const to = relative(src, resolve(dirname(file), specifier))
    targets.push(to)
    const why = verdict(from, to)
    if (why !== undefined) problems.push(`src/${from}:${line} imports ${specifier}: ${why}`)
  }
  graph.set(from, targets)
}
for (const group of cyclesOf(graph)) {
  problems.push(`import cycle: ${group.map((file) => `src/${file}`).join(", ")}: let them share a third file`)
}

for (const problem of problems) console.error(problem)
console.log(`${files.length} files, ${problems.length} violations`)
process.exitCode = problems.length === 0 ? 0 : 1
