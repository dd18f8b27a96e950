#!/usr/bin/env node
// Words no file of the project may hold: they would tie it to one machine or to one package registry.
// usage: scripts/forbidden.mjs [ROOT]   prints file:line and the reason, exits 1 if there is any.
import { execFileSync } from "node:child_process"
import { existsSync, lstatSync, readdirSync, readFileSync } from "node:fs"
import { join, resolve } from "node:path"

/** Written so that none of them matches its own source. */
const forbidden = [
  {
    why: "names a package registry: npm, apt and the others know theirs",
    pattern: /\bregistry\.[a-z0-9-]+\.(?:com|org|io|dev|net|cn)\b|\bnpm(?:js|mirror)\.(?:com|org)\b|\byarnpkg\.com\b/i
  },
  {
    why: "names a package registry: npm, apt and the others know theirs",
    pattern: /\bpypi\.org\b|\bpythonhosted\.org\b|\bcrates\.io\b|\brubygems\.org\b|\bproxy\.golang\.org\b|\b(?:deb|archive|security)\.(?:debian\.org|ubuntu\.com)\b/i
  },
  { why: "is a path of one machine", pattern: /\/work\/(?:main|shared|\.)|\/tmp\/(?:bash_|lab\b)|\/root\/\./ },
  { why: "leads out of the project", pattern: /\.\.\/shared\b/ },
  {
    why: "locks an address: the lock holds integrity hashes only (npm config omit-lockfile-registry-resolved)",
    pattern: /"resolved"\s*:/,
    only: /(?:^|\/)(?:package-lock|npm-shrinkwrap)\.json$/
  }
]

const root = resolve(process.argv[2] ?? join(import.meta.dirname, ".."))
const skipped = new Set([".git", "node_modules", "dist", "build", ".stoker"])

/** What git would take in; without git, everything but what is generated. */
const filesOf = () => {
  if (existsSync(join(root, ".git"))) {
    const options = { cwd: root, encoding: "utf8", maxBuffer: 64 * 1024 * 1024 }
    return execFileSync("git", ["ls-files", "-z", "--cached", "--others", "--exclude-standard"], options)
      .split("\0").filter((name) => name !== "" && existsSync(join(root, name)))
  }
  const below = (folder) =>
    readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
      const name = join(folder, entry.name)
      if (skipped.has(entry.name)) return []
      return entry.isDirectory() ? below(name) : [name]
    })
  return below(".")
}

const binary = (bytes) => bytes.subarray(0, 8192).includes(0)

let problems = 0
const files = filesOf().filter((name) => lstatSync(join(root, name)).isFile())
for (const name of files) {
  const bytes = readFileSync(join(root, name))
  if (binary(bytes)) continue
  const lines = bytes.toString("utf8").split("\n")
  for (const { only, pattern, why } of forbidden) {
    if (only !== undefined && !only.test(name)) continue
    lines.forEach((line, index) => {
      const hit = pattern.exec(line)
      if (hit === null) return
      problems += 1
      console.error(`${name}:${index + 1} "${hit[0]}" ${why}`)
    })
  }
}
console.log(`${files.length} files, ${problems} violations`)
process.exitCode = problems === 0 ? 0 : 1
