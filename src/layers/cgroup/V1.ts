import { Effect } from "effect"
import { dirname, join } from "node:path"
import { CgroupError, type CgroupLimits, CgroupUnavailable } from "./Cgroup.ts"
import { type CgroupFs, isGone } from "./CgroupFs.ts"
import * as Formats from "./Formats.ts"
import type { Hierarchy, LeafOperations, Root } from "./Hierarchy.ts"
import { type CgroupMount, directoryOf } from "./Mounts.ts"
import * as Processes from "./Processes.ts"
import { limitSwap } from "./Swap.ts"

const required = ["memory", "pids", "cpu", "cpuacct"]
const optional = ["freezer"]

/** What v1 cannot hold at all, by the name v2 has for it. */
const lacking = [["memoryHighBytes", "memory.high"], ["oomGroup", "memory.oom.group"], [
  "ioWeight",
  "io.weight"
]] as const

/** Whether a value says more than its absence. */
const isAsked = (value: number | boolean | undefined) =>
  value !== undefined && value !== false && value !== 100 && value !== Number.POSITIVE_INFINITY

/** Of the memory limit, for what lies in sockets of TCP and UDP: v1 counts that apart, and not at all without a limit. */
const SOCKET_SHARE = 1 / 4

/** What is needed to find the v1 controllers of a host. */
export interface V1Options {
  readonly fs: CgroupFs
  readonly mounts: ReadonlyArray<CgroupMount>
  /** The cgroup of this process per controller. */
  readonly own: ReadonlyMap<string, string>
  readonly swaps: string
  /** Also limit and count bytes read and written. One directory more per leaf, and v1 does not see buffered writes. */
  readonly io: boolean
  /** Also bind to cores. One directory more per leaf. */
  readonly cpuset: boolean
}

/**
 * The v1 controllers, one hierarchy each (some are mounted together). Instances lie below the worker's own cgroup in
 * every controller, so that limits on the worker as a whole (a container's, a unit's) stay above its jobs.
 */
export const make = Effect.fnUntraced(function*(options: V1Options): Effect.fn.Return<Hierarchy, CgroupUnavailable> {
  const { fs } = options
  const roots: Array<Root> = []
  const indexes = new Map<string, number>() // of a controller in `roots`
  const missing: Array<string> = []
  for (
    const controller of [
      ...required,
      ...optional,
      ...(options.io ? ["blkio"] : []),
      ...(options.cpuset ? ["cpuset"] : [])
    ]
  ) {
    const mount = options.mounts.find((one) => one.version === "v1" && one.controllers.includes(controller))
    const base = mount === undefined ? undefined : directoryOf(mount, options.own.get(controller) ?? "/")
    if (mount === undefined || base === undefined) {
      if (!optional.includes(controller)) missing.push(controller)
      continue
    }
    const known = roots.findIndex((root) => root.mountPoint === mount.mountPoint)
    indexes.set(controller, known >= 0 ? known : roots.push({ mountPoint: mount.mountPoint, base }) - 1)
  }
  if (missing.length > 0) {
    return yield* new CgroupUnavailable({
      missing,
      reason: `no mounted v1 hierarchy shows this process its ${missing.join(", ")} controller`,
      remedy: "mount all of them (in a container: with its own cgroup namespace), or boot with pure cgroup v2"
    })
  }

  const leaf = (directories: ReadonlyArray<string>): LeafOperations => {
    const directory = (controller: string) => directories[indexes.get(controller) ?? -1]
    const file = (name: string) => `${directory(name.slice(0, name.indexOf(".")))}/${name}`
    const freezer = directory("freezer") === undefined ? undefined : file("freezer.state")
    const writeSwap = limitSwap(fs, options.swaps)

    // A kernel without TCP has no such file; and what sockets hold already is let go as they are closed.
    const limitSockets = (bytes: number) =>
      fs.write(file("memory.kmem.tcp.limit_in_bytes"), Formats.limit(Math.ceil(bytes * SOCKET_SHARE), "-1")).pipe(
        Effect.catchIf((error) => error.code === "ENOENT" || error.code === "EBUSY", () => Effect.void)
      )

    const limitMemory = Effect.fnUntraced(function*(bytes: number, swapBytes: number) {
      const memory = fs.write(file("memory.limit_in_bytes"), Formats.limit(bytes, "-1"))
      const total = writeSwap(file("memory.memsw.limit_in_bytes"), Formats.limit(bytes + swapBytes, "-1"))
      // memory <= memory + swap holds at every moment, or the kernel says EINVAL: lower the first, then the second;
      // when that is refused we are raising, the other way round.
      yield* memory.pipe(
        Effect.andThen(total),
        Effect.catchIf((error) => error.code === "EINVAL", () => Effect.andThen(total, memory))
      )
      yield* limitSockets(bytes)
    })

    const limitSwapOnly = Effect.fnUntraced(function*(swapBytes: number) {
      const bytes = Number(yield* fs.read(file("memory.limit_in_bytes")))
      yield* writeSwap(file("memory.memsw.limit_in_bytes"), Formats.limit(bytes + swapBytes, "-1"))
    })

    const tooLow = (error: CgroupError) =>
      Effect.flatMap(fs.readOptional(file("memory.usage_in_bytes")), (current) =>
        Effect.fail(
          new CgroupError({
            operation: "limit",
            path: error.path,
            reason: `its processes hold ${current?.trim()} bytes, and the new limit is lower`,
            remedy: "give a higher limit, or kill the processes first",
            code: "EBUSY",
            cause: error
          })
        ))

    const limit = Effect.fnUntraced(function*(limits: CgroupLimits) {
      if (limits.memoryBytes !== undefined) {
        yield* limitMemory(limits.memoryBytes, limits.swapBytes ?? 0).pipe(
          Effect.catchIf((error) => error.code === "EBUSY", tooLow)
        )
      } else if (limits.swapBytes !== undefined) yield* limitSwapOnly(limits.swapBytes)
      if (limits.pids !== undefined) yield* fs.write(file("pids.max"), Formats.limit(limits.pids, "max"))
      // The period is never written: a fresh group has the kernel's 100 ms.
      if (limits.cpus !== undefined) yield* fs.write(file("cpu.cfs_quota_us"), Formats.cpuQuota(limits.cpus, "-1"))
      if (limits.cpuWeight !== undefined) yield* fs.write(file("cpu.shares"), Formats.cpuShares(limits.cpuWeight))
      for (const [name, rate] of limits.ioMax === undefined ? [] : Formats.throttles(limits.ioMax)) {
        for (const device of limits.ioMax?.devices ?? []) yield* fs.write(file(name), `${device} ${rate}`)
      }
      if (limits.cpuset !== undefined) yield* fs.write(file("cpuset.cpus"), limits.cpuset)
      const missing = lacking.find(([field]) => isAsked(limits[field]))
      if (missing !== undefined) {
        return yield* new CgroupError({
          operation: "limit",
          path: directories[0] ?? "",
          reason: `cgroup v1 has no ${missing[1]}`,
          remedy: "boot with cgroup v2 (systemd.unified_cgroup_hierarchy=1), or leave the limit out"
        })
      }
    })

    const usage = Effect.gen(function*() {
      const cpuNanos = Number(yield* fs.read(file("cpuacct.usage")))
      const ticks = Formats.flatKeyed(yield* fs.readOptional(file("cpuacct.stat")))
      const split = Formats.splitCpu(Math.round(cpuNanos / 1000), ticks.get("user"), ticks.get("system"))
      const throttledNanos = Formats.flatKeyed(yield* fs.readOptional(file("cpu.stat"))).get("throttled_time")
      const io = Formats.ioServiceBytes(
        indexes.has("blkio") ? yield* fs.readOptional(file("blkio.throttle.io_service_bytes")) : undefined
      )
      return {
        cpuMicros: Math.round(cpuNanos / 1000),
        cpuUserMicros: split?.user,
        cpuSystemMicros: split?.system,
        throttledMicros: throttledNanos === undefined ? undefined : Math.round(throttledNanos / 1000),
        memoryPeakBytes: Formats.number(yield* fs.readOptional(file("memory.max_usage_in_bytes"))),
        pidsPeak: Formats.number(yield* fs.readOptional(file("pids.peak"))),
        pidsMaxHits: Formats.flatKeyed(yield* fs.readOptional(file("pids.events"))).get("max"),
        oomKills: Formats.flatKeyed(yield* fs.readOptional(file("memory.oom_control"))).get("oom_kill"),
        ioReadBytes: io.read,
        ioWriteBytes: io.write
      }
    })

    const cpu = Effect.map(fs.read(file("cpuacct.usage")), (nanos) => Math.round(Number(nanos) / 1000))
    const now = Effect.gen(function*() {
      return {
        cpuMicros: yield* cpu,
        memoryBytes: Formats.number(yield* fs.readOptional(file("memory.usage_in_bytes"))),
        pids: Formats.number(yield* fs.readOptional(file("pids.current")))
      }
    })
    const memory = Effect.map(fs.readOptional(file("memory.stat")), (text) => {
      const stat = Formats.flatKeyed(text)
      const files = stat.get("total_cache")
      const tmpfs = stat.get("total_shmem")
      const cache = files === undefined || tmpfs === undefined ? undefined : Math.max(0, files - tmpfs)
      return { anonBytes: stat.get("total_rss"), cacheBytes: cache, tmpfsBytes: tmpfs }
    })

    // Of every controller: a launcher that died between two of its writes is in some of them only.
    const procs = Effect.gen(function*() {
      let text = ""
      for (const one of directories) text += yield* Processes.textBelow(fs, one)
      return text
    })
    const pids = Effect.map(procs, (text) => [...new Set(Formats.pids(text))])

    const noFreezer = Effect.suspend(() =>
      Effect.fail(
        new CgroupError({
          operation: "freeze",
          path: directories[0] ?? "",
          reason: "this host has no v1 freezer controller",
          remedy: "mount it, or do without freezing"
        })
      )
    )
    const setState = (state: "FROZEN" | "THAWED") => freezer === undefined ? noFreezer : fs.write(freezer, state)
    const thaw = setState("THAWED")
    // A watchdog stops the whole instance while it kills. One that died over it left it stopped, and what is stopped there
    // does not even die, whatever the leaf's own state is.
    const thawAbove = Effect.suspend(() =>
      freezer === undefined ?
        Effect.void :
        Effect.flatMap(fs.readOptional(freezer), (state) =>
          state === undefined || state.trim() === "THAWED"
            ? Effect.void
            : fs.write(join(dirname(dirname(freezer)), "freezer.state"), "THAWED"))
    )
    const signalAll = Effect.flatMap(pids, (all) => Processes.signalAll(fs, all))
    // Frozen processes neither fork nor end, so every number read is still theirs when the signal goes out; they die as
    // they thaw. Without the freezer a number could be another's by then, but only within these microseconds.
    const killOnce = freezer === undefined ? signalAll : setState("FROZEN").pipe(
      Effect.catchIf(isGone, () => Effect.void),
      Effect.andThen(signalAll),
      Effect.ensuring(Effect.andThen(Effect.ignore(thaw), Effect.ignore(thawAbove))),
      Effect.uninterruptible
    )

    return {
      limit,
      usage,
      now,
      cpu,
      memory,
      pressure: Effect.succeed({}),
      resetPeak: Effect.isSuccess(fs.write(file("memory.max_usage_in_bytes"), 0)),
      pids,
      isEmpty: Effect.map(procs, (text) => text.trim() === ""),
      freeze: setState("FROZEN"),
      isFrozen: freezer === undefined
        ? noFreezer
        : Effect.map(fs.read(freezer), (state) => state.trim() === "FROZEN"),
      thaw,
      killOnce,
      forget: Effect.void
    }
  }

  // Before Linux 5.11 a limit counted what lies below only where this said so; later kernels always do.
  const prepare = Effect.fnUntraced(function*(directories: ReadonlyArray<string>) {
    const file = `${directories[indexes.get("memory") ?? -1]}/memory.use_hierarchy`
    if ((yield* fs.readOptional(file))?.trim() === "0") yield* fs.write(file, 1)
    const cpuset = indexes.get("cpuset")
    if (cpuset === undefined) return
    // Nobody can enter a group that has no cores and no memory, and a fresh one has neither unless it copies them.
    const [above, own] = [roots[cpuset]?.base ?? "", directories[cpuset] ?? ""]
    for (const name of ["cpuset.mems", "cpuset.cpus"]) {
      if ((yield* fs.read(`${own}/${name}`)).trim() !== "") continue
      yield* fs.write(`${own}/${name}`, (yield* fs.read(`${above}/${name}`)).trim())
    }
    yield* fs.write(`${own}/cgroup.clone_children`, 1)
  })

  const holds: Hierarchy["holds"] = (need, directories) => {
    const has = (controller: string, name: string) =>
      indexes.has(controller)
        ? Effect.isSuccess(fs.read(`${directories[indexes.get(controller) ?? -1]}/${name}`))
        : Effect.succeed(false)
    switch (need) {
      case "cpu-weight":
        return Effect.succeed(true)
      case "swap":
        return has("memory", "memory.memsw.limit_in_bytes")
      case "io-max":
        return has("blkio", "blkio.throttle.write_bps_device")
      case "memory-high":
      case "oom-group":
      case "io-weight":
        return Effect.succeed(false)
    }
  }

  return { version: "v1", roots, prepare, leaf, holds }
})
