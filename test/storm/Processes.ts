/** Processes by their chain of parents, and killed only while they are the same: a pid alone proves nothing. */
import { readdirSync, readFileSync } from "node:fs"
import { basename } from "node:path"

export interface Found {
  readonly pid: number
  readonly parent: number
  /** Since the machine's start, in clock ticks: with the pid it names one process for ever. */
  readonly startedAt: string
  /** Of its program, as it was called: the kernel's name for what runs from memory says less. */
  readonly name: string
}

const nameOf = (pid: number): string => basename(readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0", 1)[0] ?? "")

const read = (pid: number): Found | undefined => {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8")
    const close = stat.lastIndexOf(")")
    const fields = stat.slice(close + 2).split(" ")
    return fields[0] === "Z"
      ? undefined
      : { pid, parent: Number(fields[1]), startedAt: fields[19] ?? "", name: nameOf(pid) }
  } catch {
    return undefined
  }
}

/** All that descend from these, with their parents before them. */
export const descendants = (roots: ReadonlySet<number>): ReadonlyArray<Found> => {
  const all = readdirSync("/proc").filter((name) => /^\d+$/.test(name)).flatMap((pid) => read(Number(pid)) ?? [])
  const known = new Set(roots)
  const found: Array<Found> = []
  for (let grown = true; grown;) {
    grown = false
    for (const each of all) {
      if (known.has(each.pid) || !known.has(each.parent)) continue
      known.add(each.pid)
      found.push(each)
      grown = true
    }
  }
  return found
}

/** SIGKILL, if it is still the process that was found. */
export const killFound = (found: Found): boolean => {
  if (read(found.pid)?.startedAt !== found.startedAt) return false
  try {
    process.kill(found.pid, "SIGKILL")
    return true
  } catch {
    return false
  }
}
