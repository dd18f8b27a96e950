/** The attackers' programs: C becomes one static file that any sandbox can run, the rest is put as it is. */
import { execFileSync } from "node:child_process"
import { existsSync, mkdirSync, readFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { slowness } from "../support/Slowness.ts"

const directory = join(import.meta.dirname, "programs")

/** A command with its files, as arguments of the function `command`. */
export interface Prepared {
  readonly argv: ReadonlyArray<string>
  readonly env: Readonly<Record<string, string>>
  readonly files: ReadonlyArray<{ readonly path: string; readonly contentBase64: string; readonly executable: boolean }>
}

/** As `native/build` does: musl where it is, with the kernel's headers behind its own. */
const headers = ["/usr/include", `/usr/include/${process.arch === "arm64" ? "aarch64" : "x86_64"}-linux-gnu`]
const compiler: readonly [string, ...Array<string>] = existsSync("/usr/bin/musl-gcc")
  ? ["/usr/bin/musl-gcc", ...headers.flatMap((path) => ["-idirafter", path])]
  : ["cc"]

/** Compiled here once: an attacker brings what he has built at home, and a compiler in each job would take most of the time. */
const compiled = new Map<string, string>()
const compile = (name: string): string => {
  const known = compiled.get(name)
  if (known !== undefined) return known
  const [tool, ...own] = compiler
  const folder = join(tmpdir(), `stoker-attacks-${process.pid}`)
  mkdirSync(folder, { recursive: true })
  const program = join(folder, name.replace(/\.c$/, ""))
  const flags = ["-std=gnu11", "-O1", "-Wall", "-Wno-unused-function", "-static", "-pthread"]
  execFileSync(tool, [...own, ...flags, "-o", program, join(directory, name)], {
    stdio: ["ignore", "ignore", "inherit"]
  })
  const content = readFileSync(program).toString("base64")
  compiled.set(name, content)
  return content
}

/** `name` is a file of `programs/`. */
export const prepare = (name: string, args: ReadonlyArray<string>): Prepared => {
  const env = { SLOWNESS: String(slowness) }
  const text = () => readFileSync(join(directory, name)).toString("base64")
  const made = (argv: ReadonlyArray<string>, path: string, contentBase64: string, executable: boolean) => ({
    argv: [...argv, ...args],
    env,
    files: [{ path, contentBase64, executable }]
  })
  if (name.endsWith(".c")) return made(["./attack"], "attack", compile(name), true)
  if (name.endsWith(".sh")) return made(["/bin/sh", "attack.sh"], "attack.sh", text(), false)
  return made(["./attack"], "attack", text(), true)
}

/** The text of a file of `programs/`, for a job that compiles it itself. */
export const sourceOf = (name: string): string => readFileSync(join(directory, name), "utf8")
