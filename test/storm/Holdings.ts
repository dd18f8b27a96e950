/** What workers hold on this host: counted before a storm and after it. */
import { type FSWatcher, mkdirSync, readdirSync, readFileSync, watch } from "node:fs"
import { join } from "node:path"

/** One line for each thing that is held. */
export type Holdings = ReadonlyArray<string>

const list = (path: string, recursive = false): ReadonlyArray<string> => {
  try {
    return readdirSync(path, { recursive, encoding: "utf8" })
  } catch {
    return []
  }
}

const text = (path: string): string => {
  try {
    return readFileSync(path, "utf8")
  } catch {
    return ""
  }
}

/** Every instance that was ever seen in these state directories: their names outlive their directories in cgroups. */
export class Instances {
  private readonly names = new Set<string>()
  private readonly watchers: ReadonlyArray<FSWatcher>
  private readonly states: ReadonlyArray<string>
  private readonly port: number

  constructor(states: ReadonlyArray<string>, port: number) {
    this.states = states
    this.port = port
    this.watchers = states.map((state) => {
      mkdirSync(join(state, "instances"), { recursive: true, mode: 0o700 })
      return watch(join(state, "instances"), (_, name) => {
        if (name !== null) this.names.add(name)
      })
    })
  }

  close(): void {
    for (const watcher of this.watchers) watcher.close()
  }

  get seen(): number {
    return this.names.size
  }

  holdings(): Holdings {
    for (const state of this.states) for (const name of list(join(state, "instances"))) this.names.add(name)
    return [...this.cgroups(), ...this.processes(), ...this.mounts(), ...this.sockets(), ...this.files()]
  }

  private isOurs(path: string): boolean {
    return [...path.matchAll(/stoker-(w[a-z0-9]+)/g)].some(([, name]) => this.names.has(name ?? ""))
  }

  private cgroups(): Holdings {
    const found: Array<string> = []
    const walk = (path: string, depth: number) => {
      let entries: ReadonlyArray<string> = []
      try {
        entries = readdirSync(path, { withFileTypes: true }).filter((each) => each.isDirectory()).map(({ name }) =>
          name
        )
      } catch {
        // Others' cgroups come and go while we look.
      }
      for (const name of entries) {
        const below = join(path, name)
        if (this.isOurs(below)) found.push(`cgroup ${below}`)
        if (depth < 8) walk(below, depth + 1)
      }
    }
    walk("/sys/fs/cgroup", 0)
    return found
  }

  private processes(): Holdings {
    return list("/proc").filter((pid) => /^\d+$/.test(pid) && Number(pid) !== process.pid).flatMap((pid) => {
      const words = text(`/proc/${pid}/cmdline`).replaceAll("\0", " ")
      const named = this.states.some((state) => words.includes(state))
      return named || this.isOurs(text(`/proc/${pid}/cgroup`)) ? [`process ${pid}: ${words}`] : []
    })
  }

  private mounts(): Holdings {
    return text("/proc/self/mountinfo").split("\n")
      .filter((line) => this.states.some((state) => line.includes(state)))
      .map((line) => `mount ${line}`)
  }

  /** Unix sockets below the state directories, and open connections to the broker, ours with them. */
  private sockets(): Holdings {
    const unix = text("/proc/net/unix").split("\n").filter((line) => this.states.some((state) => line.includes(state)))
    const port = this.port.toString(16).toUpperCase().padStart(4, "0")
    const tcp = text("/proc/net/tcp").split("\n").filter((line) => line.includes(`:${port} 01 `))
    return [...unix, ...tcp.map((line) => line.trim().split(/\s+/).slice(1, 4).join(" "))].map((line) =>
      `socket ${line}`
    )
  }

  private files(): Holdings {
    return this.states.flatMap((state) =>
      ["instances", "ledger", "starting"].flatMap((folder) =>
        list(join(state, folder), true).map((name) => `file ${join(folder, name)}`)
      )
    )
  }
}

/** What is held now and was not before: things are told by their kind where their names change. */
export const more = (before: Holdings, after: Holdings): Holdings => {
  const count = (all: Holdings) => all.filter((line) => line.startsWith("socket ")).length
  const known = new Set(before)
  const fresh = after.filter((line) => !known.has(line) && !line.startsWith("socket "))
  return count(after) > count(before) ? [...fresh, ...after.filter((line) => line.startsWith("socket "))] : fresh
}
