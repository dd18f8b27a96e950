/** What the host's own files are, for those whose sandboxes see them: a change of a toolchain is a change of this. */
import { Effect } from "effect"
import { createHash } from "node:crypto"
import { realpathSync, statSync } from "node:fs"
import { join } from "node:path"

/** Where `baseEnv` looks programs up. */
const folders = ["/usr/local/bin", "/usr/bin", "/usr/local/go/bin"]

const programs = [
  "cc",
  "gcc",
  "g++",
  "c++",
  "clang",
  "clang++",
  "as",
  "ld",
  "python3",
  "go",
  "node",
  "javac",
  "rustc",
  "sh"
]

/** Each changes when packages come or go, or somebody installs by hand: headers and libraries are many, these are few. */
const witnesses = [
  "/var/lib/dpkg/status",
  "/var/lib/rpm/rpmdb.sqlite",
  "/usr/lib/sysimage/rpm/rpmdb.sqlite",
  "/lib/apk/db/installed",
  "/var/lib/pacman/local",
  "/etc/ld.so.cache",
  "/etc/alternatives",
  ...folders,
  "/usr/include",
  "/usr/lib",
  "/usr/local/include",
  "/usr/local/lib",
  "/usr/local/go/VERSION"
]

const fact = (path: string): string => {
  const found = statSync(path, { bigint: true, throwIfNoEntry: false })
  if (found === undefined) return ""
  const { ctimeNs, dev, ino, mtimeNs, size } = found
  return [realpathSync.native(path), dev, ino, size, mtimeNs, ctimeNs].join(" ")
}

/** As `fact`; what cannot be looked at is no part of it. */
const tell = (path: string): string => {
  try {
    return fact(path)
  } catch {
    return ""
  }
}

/** The same for the same files at the same places: who changed one of these paths, whatever way, changed this. */
export const identityOf = (paths: ReadonlyArray<string>): string => {
  const hash = createHash("sha256").update(process.arch)
  for (const path of paths) hash.update(`\u0000${path}\u0000${tell(path)}`)
  return hash.digest("hex")
}

const toolchains = [...programs.flatMap((name) => folders.map((folder) => join(folder, name))), ...witnesses]

/**
 * One line for the host's /usr as it is now, asked anew each time (about 0.2 ms): packages may be upgraded under a running
 * worker. Two that are equal are the same toolchains on the same host.
 */
export const hostIdentity: Effect.Effect<string> = Effect.sync(() => `host:${identityOf(toolchains)}`)
