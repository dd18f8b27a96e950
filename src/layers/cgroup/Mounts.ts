/**
 * Where the hierarchies are mounted and where in them this process is. Formats: /proc/self/mountinfo of proc(5),
 * /proc/self/cgroup of cgroups(7).
 */

/** One mounted hierarchy. */
export interface CgroupMount {
  readonly version: "v1" | "v2"
  readonly mountPoint: string
  /** The cgroup that `mountPoint` shows, seen from our cgroup namespace: not "/" in some containers. */
  readonly root: string
  /** On v1 its controllers (and other mount options); empty on v2, where `cgroup.controllers` tells. */
  readonly controllers: ReadonlyArray<string>
}

const octal = (text: string) =>
  text.replace(/\\(\d{3})/g, (_, digits: string) => String.fromCharCode(parseInt(digits, 8)))

/** The cgroup mounts of a mountinfo text, in its order. */
export const parseMounts = (mountinfo: string): ReadonlyArray<CgroupMount> =>
  mountinfo.split("\n").flatMap((line) => {
    const [place, filesystem] = line.split(" - ")
    const [, , , root, mountPoint] = (place ?? "").split(" ")
    const [type, , options] = (filesystem ?? "").split(" ")
    if (root === undefined || mountPoint === undefined || (type !== "cgroup" && type !== "cgroup2")) return []
    return [{
      version: type === "cgroup" ? "v1" : "v2",
      mountPoint: octal(mountPoint),
      root: octal(root),
      controllers: type === "cgroup" ? (options ?? "").split(",") : []
    }]
  })

/** The cgroup of this process per v1 controller, and of v2 under the empty string. */
export const parseOwn = (text: string): ReadonlyMap<string, string> =>
  new Map(
    text.split("\n").flatMap((line) => {
      const [, id, controllers, path] = /^(\d+):([^:]*):(.*)$/.exec(line) ?? []
      if (id === undefined || controllers === undefined || path === undefined) return []
      return controllers.split(",").map((controller) => [controller, path] as const)
    })
  )

/** The directory of a cgroup on a mount; undefined if the mount does not show it. */
export const directoryOf = (mount: CgroupMount, path: string): string | undefined => {
  if (path.split("/").includes("..") || mount.root.split("/").includes("..")) return undefined
  const root = mount.root === "/" ? "" : mount.root
  if (path !== root && !path.startsWith(`${root}/`)) return undefined
  const below = path.slice(root.length)
  return below === "/" ? mount.mountPoint : `${mount.mountPoint}${below}`
}
