/** Which QEMU this is, on which processor and kernel: what a snapshot is bound to. */
import { createHash } from "node:crypto"
import { readFileSync } from "node:fs"
import { release } from "node:os"
import { type Accelerator, revision } from "./Argv.ts"

/** 6.0 has `-action`; the microvm machine with ACPI came with 5.2. */
const LEAST = [6, 0] as const

export interface Version {
  /** `7.2.22 (Debian 1:7.2+dfsg-7)`. */
  readonly text: string
  readonly isEnough: boolean
}

/** Of what `--version` says; undefined if that is another program. */
export const parseVersion = (said: string): Version | undefined => {
  const match = /^QEMU emulator version ((\d+)\.(\d+)\S*(?: \([^)]*\))?)/m.exec(said)
  if (match === null) return undefined
  const [, text = "", major = "0", minor = "0"] = match
  const [least, leastMinor] = LEAST
  return { text, isEnough: Number(major) > least || (Number(major) === least && Number(minor) >= leastMinor) }
}

export const leastVersion = LEAST.join(".")

/** Model, microcode and a name for all flags, of the first processor that `/proc/cpuinfo` tells of. */
export const parseProcessor = (cpuinfo: string): string => {
  const [first = ""] = cpuinfo.split("\n\n")
  const field = (name: string) => new RegExp(`^${name}\\s*: (.*)$`, "m").exec(first)?.[1]?.trim() ?? "unknown"
  const flags = createHash("sha256").update(field("flags")).digest("hex").slice(0, 12)
  return [field("model name"), ...["cpu family", "model", "stepping", "microcode"].map(field), flags].join("/")
}

/** As one text. An emulated machine goes by the host's counter of time, so that is part of it, in MHz. */
export const identity = (version: Version, accelerator: Accelerator, tscKhz: number): string =>
  [
    `qemu ${version.text}`,
    accelerator,
    ...accelerator === "tcg" ? [`${Math.round(tscKhz / 1000)} MHz`] : [],
    parseProcessor(readFileSync("/proc/cpuinfo", "utf8")),
    release(),
    revision
  ].join(", ")
