/** Cgroups of the tests: under names of ours only, in whatever hierarchies this host has. */
import { Effect } from "effect"
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { eventually } from "./Native.ts"

interface Hierarchy {
  readonly kind: "v1" | "v2"
  readonly root: string
}

/** The hierarchies that can hold and kill: v1's freezer, and v2, which on a hybrid host has no controllers. */
export const hierarchies: ReadonlyArray<Hierarchy> = readFileSync("/proc/self/mounts", "utf8").split("\n").flatMap(
  (line): Array<Hierarchy> => {
    const [, root = "", type, options = ""] = line.split(" ")
    if (type === "cgroup2") return [{ kind: "v2", root }]
    return type === "cgroup" && options.split(",").includes("freezer") ? [{ kind: "v1", root }] : []
  }
)

/** What crun 1.8 refuses to see beside v1: hidden from it by the watchdog's namespace. Undefined on a pure v2 host. */
export const hybridMount = hierarchies.length > 1 ? hierarchies.find(({ kind }) => kind === "v2")?.root : undefined

let made = 0

/** The pids in a cgroup and below it. */
export const members = (cgroup: string): ReadonlyArray<number> =>
  !existsSync(cgroup) ? [] : [
    ...readFileSync(join(cgroup, "cgroup.procs"), "utf8").split("\n").filter((line) => line !== "").map(Number),
    ...readdirSync(cgroup, { withFileTypes: true }).filter((entry) => entry.isDirectory()).flatMap((entry) =>
      members(join(cgroup, entry.name))
    )
  ]

const write = (file: string, text: string) => {
  if (existsSync(file)) writeFileSync(file, text)
}

const remove = (cgroup: string): void => {
  for (const entry of readdirSync(cgroup, { withFileTypes: true })) {
    if (entry.isDirectory()) remove(join(cgroup, entry.name))
  }
  rmdirSync(cgroup)
}

/** A cgroup with one below it, `job`; whatever is left in them is killed at the end of the scope. */
export const cgroup = (root: string) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const path = join(root, `stoker-test-${process.pid}-${made++}`)
      mkdirSync(join(path, "job"), { recursive: true })
      return path
    }),
    (path) =>
      eventually(`${path} is empty`, 5, () => {
        for (const dir of [join(path, "job"), path]) write(join(dir, "freezer.state"), "THAWED")
        for (const pid of members(path)) if (pid > 1 && pid !== process.pid) process.kill(pid, "SIGKILL")
        return members(path).length === 0
      }).pipe(Effect.andThen(Effect.sync(() => remove(path))))
  )
