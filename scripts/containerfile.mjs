#!/usr/bin/env node
// Takes the steps of a Containerfile without a container engine, as root: each stage is a folder, RUN is a chroot in namespaces
// of its own, and the last stage becomes an OCI layout (umoci). Knows what infra/image/Containerfile uses, and refuses the rest.
// usage: scripts/containerfile.mjs CONTAINERFILE CONTEXT LAYOUT
import { execFileSync } from "node:child_process"
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { dirname, join, resolve } from "node:path"

const [file, context, layout] = process.argv.slice(2).map((path) => resolve(path))
if (layout === undefined) {
  console.error("usage: scripts/containerfile.mjs CONTAINERFILE CONTEXT LAYOUT")
  process.exit(64)
}

/** Instructions with their text; comments and continued lines are one. */
export const instructionsOf = (text) =>
  text.replaceAll(/\\\n/g, " ").split("\n").map((line) => line.trim()).filter((line) => line !== "" && !line.startsWith("#"))
    .map((line) => {
      const [, name, rest] = /^([A-Z]+)\s+(.*)$/.exec(line) ?? []
      if (name === undefined) throw new Error(`not understood: ${line}`)
      return { name, rest }
    })

const work = mkdtempSync(join(dirname(layout), "containerfile."))
const run = (program, args, options = {}) => execFileSync(program, args, { stdio: ["ignore", "inherit", "inherit"], ...options })
const args = new Map()
const expand = (text) => text.replaceAll(/\$\{(\w+)\}/g, (_, name) => args.get(name) ?? "")
const stages = new Map()
let stage

/** Debian's smallest, which is what debian:12-slim is made of. */
const base = (image, root) => {
  const suite = { "debian:12-slim": "bookworm", "debian:13-slim": "trixie" }[image]
  if (suite === undefined) throw new Error(`no base for ${image}: debian:12-slim and debian:13-slim are known`)
  const tar = join(work, `${suite}.tar`)
  if (!existsSync(tar)) {
    // What those images are: essential packages and apt, which brings the libraries Node needs; no manuals.
    run("mmdebstrap", ["--quiet", "--variant=minbase", "--dpkgopt=path-exclude=/usr/share/man/*",
      "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/locale/*", suite, tar])
  }
  mkdirSync(root)
  run("tar", ["-xf", tar, "-C", root, "--exclude=./dev/*"])
}

const steps = {
  ARG: (rest) => {
    const [name, value = ""] = rest.split("=")
    args.set(name, value)
  },
  FROM: (rest) => {
    const [image, , name = String(stages.size)] = expand(rest).split(/\s+/)
    stage = { root: join(work, name), env: {}, user: "0:0", directory: "/", entry: [], command: [] }
    base(image, stage.root)
    stages.set(name, stage)
  },
  COPY: (rest) => {
    const words = rest.split(/\s+/)
    const from = words[0]?.startsWith("--from=") ? stages.get(words.shift().slice(7)).root : context
    const [source, target] = words
    cpSync(join(from, source), join(stage.root, target), { recursive: true, verbatimSymlinks: true, preserveTimestamps: true })
    run("chown", ["-Rh", "0:0", join(stage.root, target)])
  },
  RUN: (rest) =>
    run("unshare", ["--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child", `--root=${stage.root}`,
      "/bin/sh", "-c", rest], { env: { PATH: "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", ...stage.env } }),
  ENV: (rest) => {
    const [name, ...value] = rest.split("=")
    stage.env[name] = value.join("=")
  },
  WORKDIR: (rest) => (stage.directory = rest),
  USER: (rest) => (stage.user = rest),
  ENTRYPOINT: (rest) => (stage.entry = JSON.parse(rest)),
  CMD: (rest) => (stage.command = JSON.parse(rest))
}

try {
  for (const { name, rest } of instructionsOf(readFileSync(file, "utf8"))) {
    console.log(`containerfile: ${name} ${rest}`)
    const step = steps[name]
    if (step === undefined) throw new Error(`not understood: ${name}`)
    step(rest)
  }
  rmSync(layout, { recursive: true, force: true })
  const image = `${layout}:0.1.0`
  run("umoci", ["init", "--layout", layout])
  run("umoci", ["new", "--image", image])
  run("umoci", ["insert", "--image", image, stage.root, "/"])
  run("umoci", ["config", "--image", image, "--config.user", stage.user, "--config.workingdir", stage.directory,
    ...Object.entries(stage.env).flatMap(([name, value]) => ["--config.env", `${name}=${value}`]),
    ...stage.entry.flatMap((word) => ["--config.entrypoint", word]),
    ...stage.command.flatMap((word) => ["--config.cmd", word])])
  console.log(`containerfile: oci:${image}`)
} finally {
  rmSync(work, { recursive: true, force: true })
}
