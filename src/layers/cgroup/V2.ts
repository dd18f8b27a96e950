import { Effect } from "effect"
import type { LimitNeed } from "../../schemas/Limits.ts"
import { CgroupError, type CgroupLimits } from "./Cgroup.ts"
import type { CgroupFs, Descriptor } from "./CgroupFs.ts"
import * as Formats from "./Formats.ts"
import type { Hierarchy, LeafOperations, Root } from "./Hierarchy.ts"
import * as Processes from "./Processes.ts"
import { limitSwap } from "./Swap.ts"

/** That of io.cost, and that of BFQ. */
const weightFiles = ["io.weight", "io.bfq.weight"]

/** What is needed to use a v2 hierarchy. */
export interface V2Options {
  readonly fs: CgroupFs
  readonly root: Root
  /** What the leaves shall have, all of it offered by `root.base`. */
  readonly controllers: ReadonlyArray<string>
  readonly swaps: string
}

/** The one v2 hierarchy. The scope closes what `resetPeak` holds open. */
export const make = Effect.fnUntraced(function*({ controllers, fs, root, swaps }: V2Options) {
  // memory.peak starts again only for the descriptor it was reset through (Linux 6.12), so that is kept, by directory:
  // `remove` may come through another handle of the same leaf.
  const peaks = new Map<string, Descriptor>()
  const forget = (directory: string) =>
    Effect.suspend(() => {
      const peak = peaks.get(directory)
      peaks.delete(directory)
      return peak === undefined ? Effect.void : Effect.ignore(fs.attempt("close", directory, peak.close))
    })
  yield* Effect.addFinalizer(() => Effect.forEach([...peaks.keys()], forget, { discard: true }))

  const leaf = (directories: ReadonlyArray<string>): LeafOperations => {
    const directory = directories[0] ?? ""
    const file = (name: string) => `${directory}/${name}`

    // Here a limit below what is held would not fail: the kernel would kill. What it can drop first (page cache) is not
    // counted against the new limit, but tmpfs is: without swap it stays.
    const refuseLower = Effect.fnUntraced(function*(bytes: number) {
      const current = Formats.number(yield* fs.readOptional(file("memory.current"))) ?? 0
      if (current <= bytes) return
      const stat = Formats.flatKeyed(yield* fs.readOptional(file("memory.stat")))
      const held = (stat.get("anon") ?? 0) + (stat.get("shmem") ?? 0)
      if (held <= bytes) return
      return yield* new CgroupError({
        operation: "limit",
        path: file("memory.max"),
        reason: `its processes hold ${held} bytes, and the new limit is lower`,
        remedy: "give a higher limit, or kill the processes first",
        code: "EBUSY"
      })
    })

    // Two schedulers have a weight each, and a device has one of them.
    const writeIoWeight = Effect.fnUntraced(function*(weight: number) {
      const written = yield* Effect.forEach(weightFiles, (name) =>
        fs.write(file(name), `default ${weight}`).pipe(
          Effect.as(true),
          Effect.catchIf((error) => error.code === "ENOENT", () => Effect.succeed(false))
        ))
      if (!written.includes(true)) yield* fs.write(file("io.weight"), `default ${weight}`)
    })

    const limit = Effect.fnUntraced(function*(limits: CgroupLimits) {
      const swapBytes = limits.swapBytes ?? (limits.memoryBytes === undefined ? undefined : 0)
      if (limits.memoryBytes !== undefined) {
        yield* refuseLower(limits.memoryBytes)
        yield* fs.write(file("memory.max"), Formats.limit(limits.memoryBytes, "max"))
      }
      if (swapBytes !== undefined) {
        yield* limitSwap(fs, swaps)(file("memory.swap.max"), Formats.limit(swapBytes, "max"))
      }
      if (limits.pids !== undefined) yield* fs.write(file("pids.max"), Formats.limit(limits.pids, "max"))
      if (limits.cpus !== undefined) {
        yield* fs.write(file("cpu.max"), `${Formats.cpuQuota(limits.cpus, "max")} ${Formats.cpuPeriodMicros}`)
      }
      if (limits.cpuWeight !== undefined) yield* fs.write(file("cpu.weight"), Math.round(limits.cpuWeight))
      if (limits.memoryHighBytes !== undefined) {
        yield* fs.write(file("memory.high"), Formats.limit(limits.memoryHighBytes, "max"))
      }
      if (limits.oomGroup !== undefined) yield* fs.write(file("memory.oom.group"), limits.oomGroup ? 1 : 0)
      if (limits.ioWeight !== undefined) yield* writeIoWeight(Math.round(limits.ioWeight))
      const { ioMax } = limits
      // One device in each write: the kernel takes no list.
      for (const device of ioMax?.devices ?? []) yield* fs.write(file("io.max"), Formats.ioMax(device, ioMax ?? {}))
      if (limits.cpuset !== undefined) yield* fs.write(file("cpuset.cpus"), limits.cpuset)
    })

    const peak = Effect.suspend(() => {
      const held = peaks.get(directory)
      return held === undefined
        ? fs.readOptional(file("memory.peak"))
        : fs.attempt("read", file("memory.peak"), held.read)
    })
    const resetPeak = Effect.gen(function*() {
      const held = peaks.get(directory) ?? (yield* fs.open(file("memory.peak")))
      yield* fs.attempt("reset", file("memory.peak"), () => held.write("1")).pipe(
        Effect.tapError(() => Effect.ignore(fs.attempt("close", directory, held.close)))
      )
      peaks.set(directory, held)
    })

    // A kernel with PSI turned off (psi=0) has the files, and EOPNOTSUPP for who reads them.
    const pressureOf = (of: "cpu" | "memory" | "io") =>
      fs.readOptional(file(`${of}.pressure`)).pipe(
        Effect.catchIf((error) => error.code === "EOPNOTSUPP", () => Effect.undefined),
        Effect.map(Formats.pressure)
      )

    const usage = Effect.gen(function*() {
      const cpu = Formats.flatKeyed(yield* fs.read(file("cpu.stat"))) // in every group, with the cpu controller or not
      const io = Formats.ioStat(yield* fs.readOptional(file("io.stat")))
      return {
        cpuMicros: cpu.get("usage_usec") ?? 0,
        cpuUserMicros: cpu.get("user_usec"),
        cpuSystemMicros: cpu.get("system_usec"),
        throttledMicros: cpu.get("throttled_usec"),
        memoryPeakBytes: Formats.number(yield* peak),
        pidsPeak: Formats.number(yield* fs.readOptional(file("pids.peak"))),
        pidsMaxHits: Formats.flatKeyed(yield* fs.readOptional(file("pids.events"))).get("max"),
        oomKills: Formats.flatKeyed(yield* fs.readOptional(file("memory.events"))).get("oom_kill"),
        ioReadBytes: io.read,
        ioWriteBytes: io.write,
        cpuPressureMicros: (yield* pressureOf("cpu"))?.micros,
        memoryPressureMicros: (yield* pressureOf("memory"))?.micros,
        ioPressureMicros: (yield* pressureOf("io"))?.micros
      }
    })
    const pressure = Effect.gen(function*() {
      return {
        cpu: (yield* pressureOf("cpu"))?.part,
        memory: (yield* pressureOf("memory"))?.part,
        io: (yield* pressureOf("io"))?.part
      }
    })

    const cpu = Effect.map(fs.read(file("cpu.stat")), (text) => Formats.flatKeyed(text).get("usage_usec") ?? 0)
    const now = Effect.gen(function*() {
      return {
        cpuMicros: yield* cpu,
        memoryBytes: Formats.number(yield* fs.readOptional(file("memory.current"))),
        pids: Formats.number(yield* fs.readOptional(file("pids.current")))
      }
    })
    const memory = Effect.map(fs.readOptional(file("memory.stat")), (text) => {
      const stat = Formats.flatKeyed(text)
      const files = stat.get("file")
      const tmpfs = stat.get("shmem")
      const cache = files === undefined || tmpfs === undefined ? undefined : Math.max(0, files - tmpfs)
      return { anonBytes: stat.get("anon"), cacheBytes: cache, tmpfsBytes: tmpfs }
    })

    const pids = Effect.map(Processes.textBelow(fs, directory), Formats.pids)
    // cgroup.kill is of Linux 5.14. On older ones a frozen v2 group dies of SIGKILL without a thaw.
    const killOnce = fs.write(file("cgroup.kill"), 1).pipe(
      Effect.catchIf((error) => error.code === "ENOENT", () =>
        Effect.ignore(fs.write(file("cgroup.freeze"), 1)).pipe(
          Effect.andThen(pids),
          Effect.flatMap((all) => Processes.signalAll(fs, all))
        ))
    )
    const event = (name: string) =>
      Effect.map(fs.readOptional(file("cgroup.events")), (text) => Formats.flatKeyed(text).get(name))

    return {
      limit,
      usage,
      now,
      cpu,
      memory,
      pressure,
      resetPeak: Effect.isSuccess(resetPeak),
      pids,
      isEmpty: Effect.map(event("populated"), (populated) => populated !== 1),
      freeze: fs.write(file("cgroup.freeze"), 1),
      isFrozen: Effect.map(event("frozen"), (frozen) => frozen === 1),
      thaw: fs.write(file("cgroup.freeze"), 0),
      killOnce,
      forget: forget(directory)
    }
  }

  const prepare = ([directory]: ReadonlyArray<string>) =>
    controllers.length === 0
      ? Effect.void
      : fs.write(`${directory}/cgroup.subtree_control`, controllers.map((name) => `+${name}`).join(" "))

  const files: Readonly<Record<LimitNeed, ReadonlyArray<string>>> = {
    "cpu-weight": ["cpu.weight"],
    "memory-high": ["memory.high"],
    swap: ["memory.swap.max"],
    "oom-group": ["memory.oom.group"],
    "io-weight": weightFiles,
    "io-max": ["io.max"]
  }
  const holds: Hierarchy["holds"] = (need, [directory]) =>
    Effect.map(
      Effect.forEach(files[need], (name) => Effect.isSuccess(fs.read(`${directory}/${name}`))),
      (found) => found.includes(true)
    )

  return { version: "v2", roots: [root], prepare, leaf, holds } satisfies Hierarchy
})
