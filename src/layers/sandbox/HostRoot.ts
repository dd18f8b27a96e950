/**
 * What compilers the host's /usr has, as a name that changes with them. Packages are replaced by renaming, which their
 * directories' times show, and package managers write down each change. A header that somebody edits in place is not seen:
 * who does that removes `cache/compiled` in the state directory.
 */
import { Effect } from "effect"
import { createHash } from "node:crypto"
import { type BigIntStats, readdirSync, realpathSync, statSync } from "node:fs"
import { dirname, join } from "node:path"
import { baseEnv } from "../../schemas/Program.ts"

const tools = ["gcc", "cc", "g++", "c++", "clang", "clang++", "as", "ld", "go"]

/** Headers, libraries, programs; what the package managers of Debian, Fedora, Alpine and Arch wrote down last. */
const places = [
  "/usr/bin",
  "/usr/include",
  "/usr/lib",
  "/usr/lib64",
  "/usr/local/bin",
  "/usr/local/include",
  "/usr/local/lib",
  "/etc/alternatives",
  "/etc/ld.so.cache",
  "/var/lib/dpkg/status",
  "/usr/lib/sysimage/rpm",
  "/var/lib/rpm",
  "/lib/apk/db/installed",
  "/var/lib/pacman/local"
]

const orNone = <A>(read: () => A): A | undefined => {
  try {
    return read()
  } catch {
    return undefined
  }
}

const below = (path: string): ReadonlyArray<string> =>
  (orNone(() => readdirSync(path)) ?? []).map((name) => join(path, name))

/** The compilers proper, which gcc and go start; they lie beside each other. */
const innerTools = (go: string | undefined) => [
  ...below("/usr/lib/gcc").flatMap(below).flatMap((
    version
  ) => [version, join(version, "cc1"), join(version, "cc1plus")]),
  ...below("/usr/lib").filter((path) => path.endsWith("-linux-gnu") || path.includes("/llvm-")),
  ...(go === undefined ? [] : [join(dirname(dirname(go)), "VERSION"), ...below(join(dirname(dirname(go)), "pkg/tool"))])
]

/** Its real path, size and time; nothing if it is not there. */
const seen = (path: string): ReadonlyArray<string> => {
  const stat: BigIntStats | undefined = statSync(path, { bigint: true, throwIfNoEntry: false })
  return stat === undefined ? [] : [`${realpathSync(path)} ${stat.ino} ${stat.size} ${stat.mtimeNs}`]
}

/** It is looked at again after this: some 40 files, a third of a millisecond. */
const FRESH = "1 second"

/** Fails never: what cannot be looked at is not there for a job either. */
export const make: Effect.Effect<Effect.Effect<string>> = Effect.cachedWithTTL(
  Effect.sync(() => {
    const folders = (baseEnv.PATH ?? "").split(":")
    const found = folders.flatMap((folder) => tools.map((tool) => join(folder, tool)))
    const go = folders.flatMap((folder) => orNone(() => realpathSync(join(folder, "go"))) ?? [])[0]
    const all = [...places, ...found, ...innerTools(go)].flatMap((path) => orNone(() => seen(path)) ?? [])
    return `host ${process.arch} ${createHash("sha256").update(all.join("\n")).digest("hex")}`
  }),
  FRESH
)
