/** What a directory of the host is as a root file system: a name that changes when it, or a toolchain in it, is replaced. */
import { createHash } from "node:crypto"
import { readlinkSync, statSync } from "node:fs"
import { join } from "node:path"

const folders = ["bin", "usr/bin", "usr/local/bin", "usr/local/go/bin"]
const programs = ["cc", "gcc", "g++", "c++", "clang", "clang++", "as", "ld", "go", "python3"]

/** Directories change when something is installed in them; package managers write down what they did. */
const places = [
  "",
  ...folders,
  "etc/alternatives",
  "etc/ld.so.cache",
  "lib/apk/db/installed",
  "usr/include",
  "usr/lib",
  "usr/lib/sysimage/rpm",
  "usr/local/include",
  "usr/local/lib",
  "var/lib/dpkg/status",
  "var/lib/rpm"
]

/** The second time is the kernel's own, which nobody sets. A link out of the directory is what it says. */
const seen = (path: string): string => {
  try {
    const { ctimeNs, dev, ino, mtimeNs, size } = statSync(path, { bigint: true })
    return `${dev} ${ino} ${size} ${mtimeNs} ${ctimeNs}`
  } catch {
    try {
      return readlinkSync(path)
    } catch {
      return ""
    }
  }
}

/** About sixty files are looked at. What is changed deep in the directory is not seen: who does that touches it. */
export const directoryIdentity = (root: string): string => {
  const paths = [...places, ...folders.flatMap((folder) => programs.map((program) => join(folder, program)))]
  const facts = paths.map((path) => `${path} ${seen(join(root, path))}`)
  return createHash("sha256").update([root, process.arch, ...facts].join("\n")).digest("hex")
}
