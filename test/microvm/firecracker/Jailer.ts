/**
 * The jailer's outside: its arguments, taken strictly, the folders and devices it makes, the users it gives them to, and then
 * what it was told to run, as that user. It changes no root directory: the stand-in is told where its own is.
 */
import {
  chmodSync,
  chownSync,
  closeSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  realpathSync,
  statSync,
  writeFileSync
} from "node:fs"
import { basename, join } from "node:path"
import { serve } from "./StandIn.ts"

const fail = (why: string): never => {
  process.stderr.write(`${why}\n`)
  process.exit(1)
}

const VALUES = [
  "id",
  "exec-file",
  "uid",
  "gid",
  "chroot-base-dir",
  "netns",
  "cgroup",
  "resource-limit",
  "cgroup-version",
  "parent-cgroup"
]
const FLAGS = ["daemonize", "new-pid-ns"]
const MANY = ["cgroup", "resource-limit"]

/** Throws by ending: an argument that is not the jailer's, twice what may be there once, a value that is missing. */
export const parse = (args: ReadonlyArray<string>) => {
  const found = new Map<string, Array<string>>()
  let rest: ReadonlyArray<string> = []
  for (let i = 0; i < args.length; i++) {
    const word = args[i] ?? ""
    if (word === "--") {
      rest = args.slice(i + 1)
      break
    }
    const name = word.startsWith("--") ? word.slice(2) : fail(`Failed to parse arguments: Found argument '${word}'`)
    if (FLAGS.includes(name)) {
      found.set(name, [])
      continue
    }
    if (!VALUES.includes(name)) fail(`Failed to parse arguments: Found argument '${name}' which wasn't expected`)
    const value = args[++i]
    if (value === undefined || value.startsWith("--")) {
      return fail(`Failed to parse arguments: The argument '${name}' requires a value`)
    }
    if (found.has(name) && !MANY.includes(name)) {
      fail(`Failed to parse arguments: The argument '${name}' was provided more than once.`)
    }
    found.set(name, [...found.get(name) ?? [], value])
  }
  return { found, rest }
}

const main = () => {
  const { found, rest } = parse(process.argv.slice(2))
  const one = (name: string) => found.get(name)?.[0]
  const must = (name: string) =>
    one(name) ?? fail(`Failed to parse arguments: Argument '${name}' required, but not found.`)
  const id = must("id")
  if (!/^[A-Za-z0-9-]{1,64}$/.test(id)) fail(`Invalid instance ID: ${id}`)
  const program = realpathSync(must("exec-file"))
  const base = realpathSync(one("chroot-base-dir") ?? "/srv/jailer")
  if (!statSync(base).isDirectory()) fail(`${base} is not a directory`)
  const user = (name: string) =>
    /^\d{1,10}$/.test(must(name)) ? Number(must(name)) : fail(`Invalid ${name}: ${must(name)}`)
  const [uid, gid] = [user("uid"), user("gid")]
  const version = one("cgroup-version") ?? "1"
  if (version !== "1" && version !== "2") fail(`${version} is an invalid cgroup version specifier`)
  const parent = one("parent-cgroup") ?? basename(program)
  if (parent.startsWith("/") || parent.split("/").some((part) => part === "." || part === "..")) {
    fail("Parent cgroup path is invalid. Path should not be absolute or contain '..' or '.'")
  }
  if ((found.get("cgroup") ?? []).length === 0 && version === "2") {
    const mount = readFileSync("/proc/mounts", "utf8").split("\n").map((line) => line.split(" ")).find(
      ([, , type]) => type === "cgroup2"
    )?.[1] ?? fail("Hierarchy not found: No hierarchy found for this cgroup version.")
    if (existsSync(join(mount, parent))) writeFileSync(join(mount, parent, "cgroup.procs"), `${process.pid}`)
  }
  for (const limit of found.get("resource-limit") ?? []) {
    if (!/^(?:no-file|fsize)=\d+$/.test(limit)) fail(`Invalid format for resources limits: ${limit}`)
  }
  const root = join(base, basename(program), id, "root")
  mkdirSync(root, { recursive: true })
  const copy = join(root, basename(program))
  copyFileSync(program, copy)
  chownSync(copy, uid, gid)
  const netns = one("netns")
  if (netns !== undefined) closeSync(openSync(netns, "r"))
  for (const folder of ["", "dev", "dev/net", "run"]) {
    mkdirSync(join(root, folder), { recursive: true })
    chmodSync(join(root, folder), 0o700)
    chownSync(join(root, folder), uid, gid)
  }
  for (const device of ["dev/net/tun", "dev/kvm", "dev/urandom"]) {
    writeFileSync(join(root, device), "", { flag: "wx" })
    chownSync(join(root, device), uid, gid)
  }
  writeFileSync(`${copy}.pid`, `${process.pid}`, { flag: "wx" })
  writeFileSync(join(root, "arguments"), JSON.stringify(process.argv.slice(2)))
  const [socketFlag, socket, ...more] = rest
  if (socketFlag !== "--api-sock" || socket === undefined || more.length > 0) {
    writeFileSync(2, `Arguments parsing error: ${rest.join(" ")}\n`)
    process.exit(153)
  }
  process.chdir(root)
  process.setgroups?.([])
  process.setgid?.(gid)
  process.setuid?.(uid)
  serve({
    id,
    root: ".",
    socket,
    version: process.env["STANDIN_VERSION"] ?? "1.16.1",
    fault: process.env["STANDIN_FAULT"] ?? ""
  })
}

if (process.argv[1] === import.meta.filename) main()
