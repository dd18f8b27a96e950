/** What an attack must not change outside of its sandbox: measured on the host, before and after. */
import { createHash } from "node:crypto"
import { readdirSync, readFileSync, statSync } from "node:fs"
import { hostname } from "node:os"
import { join } from "node:path"
import { held } from "../sandbox/Jobs.ts"
import { projectRoot } from "../support/Tree.ts"

/** A number that the programs use for keys and names that a host would see if it could. */
export const MARK = 0x570_4e4b

const hash = (path: string): string => {
  try {
    return createHash("sha256").update(readFileSync(path)).digest("hex")
  } catch {
    return "absent"
  }
}

/** A kernel need not have each of them. */
const text = (path: string): string => {
  try {
    return readFileSync(path, "utf8")
  } catch {
    return "absent"
  }
}

const first = (paths: ReadonlyArray<string>) => paths.find((path) => hash(path) !== "absent") ?? ""

const named = (directory: string): ReadonlyArray<string> => {
  try {
    return readdirSync(directory).filter((name) => name.includes("stoker-attack-mark"))
  } catch {
    return []
  }
}

const programs = ["guest", "launch", "watchdog"].map((name) => join(projectRoot, "build", "native", name))
/** Those that run next to a job, and what a job might want to write. */
const files = [
  ...programs,
  first(["/usr/bin/crun", "/usr/local/bin/crun"]),
  "/usr/bin/env",
  "/etc/passwd",
  "/etc/shadow",
  "/etc/hosts"
]
const settings = ["kernel/hostname", "kernel/domainname", "kernel/core_pattern", "kernel/sysrq", "kernel/modprobe"]

/** How far the date is ahead of the monotonic clock, to the minute: two programs of ours never set it. */
const dateMinutes = () => Math.round((Date.now() - performance.now()) / 60_000)

const start = dateMinutes()

export const look = (state: string) => {
  const { ledger, ...counts } = held(state)
  return {
    ...counts,
    ledger: ledger.length,
    files: files.map((path) => `${path} ${hash(path)}`),
    settings: settings.map((name) => `${name} ${text(`/proc/sys/${name}`)}`),
    hostname: hostname(),
    dateMoved: Math.abs(dateMinutes() - start) > 1,
    /** Keys of System V objects and names in places that all of the host can write to. */
    ipc: ["shm", "sem", "msg"].filter((kind) =>
      text(`/proc/sysvipc/${kind}`).split("\n").some((line) => line.trim().startsWith(`${MARK} `))
    ),
    marks: ["/tmp", "/dev/shm", "/var/tmp", "/dev/mqueue", "/run"].flatMap(named),
    abstractSockets: text("/proc/net/unix").includes("@stoker-attack-mark"),
    guestMode: statSync(programs[0] ?? "").mode
  }
}

export type HostState = ReturnType<typeof look>

export const isAs = (one: HostState, other: HostState) => JSON.stringify(one) === JSON.stringify(other)
