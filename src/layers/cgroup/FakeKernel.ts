import type { Descriptor, Syscalls } from "./CgroupFs.ts"

/**
 * cgroupfs in memory, as far as this folder relies on it: which files a new group has, that a group with processes or
 * groups is busy, that the frozen die at their thaw, that v1 keeps memory <= memory + swap. For deterministic tests.
 */
export interface FakeKernel extends Syscalls {
  /** Every write and every rmdir that succeeded, in order, as "<path> <value>" and "rmdir <path>". */
  readonly calls: ReadonlyArray<string>
  readonly exists: (path: string) => boolean
  /** Makes or changes any file, /proc included, without being asked whether that is allowed. */
  readonly set: (path: string, text: string) => void
  /** Takes a control file away, as an older kernel would. */
  readonly drop: (path: string) => void
  /** Lets the next `times` calls ("write", "rmdir", ...) on paths that end so fail with an errno. */
  readonly failNext: (call: keyof Syscalls, pathEnd: string, code: string, times?: number) => void
}

interface Group {
  readonly files: Map<string, string>
  readonly pids: Set<number>
}

/** What v1 makes of -1: the highest number of bytes in whole pages. */
const unlimited = "9223372036854771712"

const pressure = "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"

/** What a fresh group has, per v1 controller; of v2 the core files are under "core". */
const fresh: Readonly<Record<"v1" | "v2", Readonly<Record<string, Readonly<Record<string, string>>>>>> = {
  v1: {
    memory: {
      "memory.limit_in_bytes": unlimited,
      "memory.memsw.limit_in_bytes": unlimited,
      "memory.usage_in_bytes": "0",
      "memory.max_usage_in_bytes": "0",
      "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n",
      "memory.stat": "total_cache 0\ntotal_rss 0\n",
      "memory.use_hierarchy": "1"
    },
    pids: { "pids.max": "max", "pids.current": "0", "pids.peak": "0", "pids.events": "max 0\n" },
    cpu: { "cpu.cfs_quota_us": "-1", "cpu.shares": "1024", "cpu.stat": "nr_throttled 0\nthrottled_time 0\n" },
    cpuacct: { "cpuacct.usage": "0", "cpuacct.stat": "user 0\nsystem 0\n" },
    freezer: { "freezer.state": "THAWED" },
    blkio: {
      "blkio.throttle.io_service_bytes": "Total 0\n",
      "blkio.throttle.read_bps_device": "",
      "blkio.throttle.write_bps_device": "",
      "blkio.throttle.read_iops_device": "",
      "blkio.throttle.write_iops_device": ""
    },
    cpuset: { "cpuset.cpus": "", "cpuset.mems": "", "cgroup.clone_children": "0" }
  },
  v2: {
    core: {
      "cgroup.type": "domain",
      "cgroup.kill": "",
      "cgroup.freeze": "0",
      "cgroup.subtree_control": "",
      "cgroup.controllers": "",
      "cpu.stat": "usage_usec 0\nuser_usec 0\nsystem_usec 0\n"
    },
    memory: {
      "memory.max": "max",
      "memory.swap.max": "max",
      "memory.current": "0",
      "memory.peak": "0",
      "memory.events": "max 0\noom 0\noom_kill 0\n",
      "memory.stat": "anon 0\nfile 0\nshmem 0\n",
      "memory.high": "max",
      "memory.oom.group": "0",
      "memory.pressure": pressure
    },
    pids: { "pids.max": "max", "pids.current": "0", "pids.peak": "0", "pids.events": "max 0\n" },
    cpu: {
      "cpu.max": "max 100000",
      "cpu.weight": "100",
      "cpu.stat": "usage_usec 0\nuser_usec 0\nsystem_usec 0\nnr_throttled 0\nthrottled_usec 0\n",
      "cpu.pressure": pressure
    },
    io: { "io.stat": "", "io.max": "", "io.weight": "default 100\n", "io.pressure": pressure },
    cpuset: { "cpuset.cpus": "" }
  }
}

const mountsOf = {
  v1: Object.keys(fresh.v1).map((name) => [name, `/sys/fs/cgroup/${name}`] as const),
  v2: [["v2", "/sys/fs/cgroup"]] as const
}

const split = (path: string) => [path.slice(0, path.lastIndexOf("/")), path.slice(path.lastIndexOf("/") + 1)] as const

/** A host with all controllers on one version, no swap, and this process in `own` (as /proc/self/cgroup tells it). */
export const make = (version: "v1" | "v2", own = "/"): FakeKernel => {
  const groups = new Map<string, Group>()
  const plain = new Map<string, string>()
  const calls: Array<string> = []
  const planned: Array<{ call: string; pathEnd: string; code: string; times: number }> = []
  const doomed = new Set<number>()

  const errno = (code: string, path: string) => Object.assign(new Error(`${code}: ${path}`), { code })
  const enter = (call: keyof Syscalls, path: string) => {
    const plan = planned.find((one) => one.call === call && one.times > 0 && path.endsWith(one.pathEnd))
    if (plan === undefined) return
    plan.times -= 1
    throw errno(plan.code, path)
  }
  const at = (path: string, of: string) => {
    const group = groups.get(path)
    if (group === undefined) throw errno("ENOENT", of)
    return group
  }
  const childrenOf = (path: string) =>
    [...groups.keys()].filter((one) => split(one)[0] === path).map((one) => split(one)[1])
  const subtree = (path: string) =>
    [...groups].filter(([one]) => one === path || one.startsWith(`${path}/`)).map(([, group]) => group)
  const mountOf = (path: string) =>
    mountsOf[version].find(([, mount]) => path === mount || path.startsWith(`${mount}/`))

  const add = (path: string) => {
    const enabled = version === "v1"
      ? [mountOf(path)?.[0] ?? ""]
      : (groups.get(split(path)[0])?.files.get("cgroup.subtree_control") ?? "").split(" ").filter((word) => word !== "")
    const names = version === "v1" ? enabled : ["core", ...enabled]
    const files = new Map(names.flatMap((name) => Object.entries(fresh[version][name] ?? {})))
    if (version === "v2") files.set("cgroup.controllers", enabled.join(" "))
    groups.set(path, { files, pids: new Set() })
  }

  const isFrozen = (group: Group) => group.files.get("freezer.state") === "FROZEN"
  const reap = () => {
    const held = new Set([...groups.values()].filter(isFrozen).flatMap((group) => [...group.pids]))
    for (const pid of doomed) {
      if (held.has(pid)) continue
      for (const group of groups.values()) group.pids.delete(pid)
      doomed.delete(pid)
    }
  }

  /** What the kernel does besides remembering the value; throws to refuse it. */
  const effects: Readonly<Record<string, (path: string, group: Group, value: string) => void>> = {
    "cgroup.procs": (path, group, value) => {
      const pid = value === "0" ? process.pid : Number(value)
      for (const [other, { pids }] of groups) if (mountOf(other) === mountOf(path)) pids.delete(pid)
      group.pids.add(pid)
    },
    "cgroup.kill": (path) => subtree(path).forEach(({ pids }) => pids.clear()),
    "cgroup.subtree_control": (path, group, value) => {
      const names = value.split(" ").map((word) => word.slice(1))
      const offered = group.files.get("cgroup.controllers")?.split(" ") ?? []
      if (names.some((name) => !offered.includes(name))) throw errno("ENOENT", path)
      if (group.pids.size > 0 && group.files.has("cgroup.type")) throw errno("EBUSY", path)
      const enabled = new Set([...(group.files.get("cgroup.subtree_control") ?? "").split(" "), ...names])
      group.files.set("cgroup.subtree_control", [...enabled].filter((name) => name !== "").join(" "))
    },
    "memory.limit_in_bytes": (path, group, value) => {
      if (Number(value) > Number(group.files.get("memory.memsw.limit_in_bytes"))) throw errno("EINVAL", path)
      if (Number(value) < Number(group.files.get("memory.usage_in_bytes"))) throw errno("EBUSY", path)
    },
    "memory.memsw.limit_in_bytes": (path, group, value) => {
      if (Number(value) < Number(group.files.get("memory.limit_in_bytes"))) throw errno("EINVAL", path)
    }
  }
  /** Files whose text is not what was last written to them. */
  const computed: Readonly<Record<string, (path: string, group: Group) => string>> = {
    "cgroup.procs": (_, group) => [...group.pids].map((pid) => `${pid}\n`).join(""),
    "cgroup.events": (path, group) =>
      `populated ${subtree(path).some(({ pids }) => pids.size > 0) ? 1 : 0}\nfrozen ${
        group.files.get("cgroup.freeze")
      }\n`
  }

  const read = (path: string) => {
    enter("read", path)
    const [directory, name] = split(path)
    const group = groups.get(directory)
    const text = group === undefined ? plain.get(path) : computed[name]?.(directory, group) ?? group.files.get(name)
    if (text === undefined) throw errno("ENOENT", path)
    return text
  }
  const write = (path: string, value: string) => {
    enter("write", path)
    const [directory, name] = split(path)
    const group = at(directory, path)
    if (!group.files.has(name) && name !== "cgroup.procs") throw errno("ENOENT", path)
    const stored = name.endsWith("limit_in_bytes") && value === "-1" ? unlimited : value
    effects[name]?.(directory, group, stored)
    if (!name.startsWith("cgroup.") || name === "cgroup.freeze") group.files.set(name, stored)
    calls.push(`${path} ${value}`)
    reap()
  }

  for (const [name, mount] of mountsOf[version]) {
    add(mount)
    const segments = own.split("/").filter((segment) => segment !== "")
    segments.forEach((_, index) => add([mount, ...segments.slice(0, index + 1)].join("/")))
    const options = name === "v2" ? "cgroup2 rw" : `cgroup rw,${name}`
    const [type, superOptions] = options.split(" ")
    plain.set(
      "/proc/self/mountinfo",
      `${plain.get("/proc/self/mountinfo") ?? ""}30 20 0:1 / ${mount} rw - ${type} ${type} ${superOptions}\n`
    )
    plain.set(
      "/proc/self/cgroup",
      `${plain.get("/proc/self/cgroup") ?? ""}${name === "v2" ? "0::" : `1:${name}:`}${own}\n`
    )
    groups.get([mount, ...segments].join("/"))?.pids.add(process.pid)
  }
  if (version === "v2") {
    for (const [path, { files }] of groups) {
      files.set("cgroup.controllers", "cpuset cpu io memory pids")
      if (path === "/sys/fs/cgroup") files.delete("cgroup.type")
    }
  }
  plain.set("/proc/swaps", "Filename Type Size Used Priority\n")

  return {
    calls,
    read,
    write,
    exists: (path) => groups.has(path),
    set: (path, text) => {
      const [directory, name] = split(path)
      const group = groups.get(directory)
      if (group === undefined) plain.set(path, text)
      else group.files.set(name, text)
    },
    drop: (path) => groups.get(split(path)[0])?.files.delete(split(path)[1]),
    failNext: (call, pathEnd, code, times = 1) => planned.push({ call, pathEnd, code, times }),
    mkdir: (path) => {
      enter("mkdir", path)
      if (groups.has(path)) throw errno("EEXIST", path)
      at(split(path)[0], path)
      add(path)
    },
    rmdir: (path) => {
      enter("rmdir", path)
      if (at(path, path).pids.size > 0 || childrenOf(path).length > 0) throw errno("EBUSY", path)
      groups.delete(path)
      calls.push(`rmdir ${path}`)
    },
    directories: (path) => {
      enter("directories", path)
      at(path, path)
      return childrenOf(path)
    },
    kill: (pid) => {
      enter("kill", `pid ${pid}`)
      if (![...groups.values()].some(({ pids }) => pids.has(pid))) throw errno("ESRCH", `pid ${pid}`)
      doomed.add(pid)
      reap()
    },
    // As since Linux 6.12: the peak starts again for this descriptor only.
    open: (path): Descriptor => {
      enter("open", path)
      read(path)
      const current = () => read(path.replace(/peak$/, "current"))
      let peak: string | undefined
      return {
        write: () => {
          enter("write", path)
          peak = current()
        },
        read: () => peak ?? read(path),
        close: () => {
          calls.push(`close ${path}`)
        }
      }
    }
  }
}
