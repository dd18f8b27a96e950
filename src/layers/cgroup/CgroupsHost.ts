import { Effect, Layer, Option } from "effect"
import { type LimitNeed, limitNeeds } from "../../schemas/Limits.ts"
import { type CgroupError, Cgroups, CgroupUnavailable } from "./Cgroup.ts"
import * as CgroupFs from "./CgroupFs.ts"
import type { Hierarchy } from "./Hierarchy.ts"
import * as Instance from "./Instance.ts"
import * as Mounts from "./Mounts.ts"
import * as V1 from "./V1.ts"
import * as V2 from "./V2.ts"
import * as V2Delegation from "./V2Delegation.ts"

/** A note of where an instance's cgroups are, for whoever finds them when the worker has died. */
export interface CgroupsRecord {
  readonly write: (
    directories: ReadonlyArray<string>
  ) => Effect.Effect<void, { readonly reason: string; readonly remedy: string }>
  readonly drop: Effect.Effect<void>
}

/** How the worker uses the cgroups of this host. */
export interface CgroupsOptions {
  /** Names `stoker-<instance>`. Two workers at once must not share it. */
  readonly instance: string
  /** By default the one that owns the memory, pids and cpu controllers: v1 if any of them is mounted there. */
  readonly version?: "v1" | "v2"
  /** Written before the first directory is made, dropped when the last one is gone. */
  readonly record?: CgroupsRecord
  /** v2: what must be there, by default memory, pids and cpu. With none, groups can be killed and timed, not limited. */
  readonly controllers?: ReadonlyArray<string>
  /** v1: limit and count bytes read and written; off by default, as v1 does not see buffered writes. v2 does when it can. */
  readonly io?: boolean
  /** Cores are to be given to groups by number: the cpuset controller as well. */
  readonly cpuset?: boolean
  /** The proc filesystem, which tells where cgroups are mounted and which is ours. */
  readonly proc?: string
  /** Stands in for the kernel in tests. */
  readonly syscalls?: CgroupFs.Syscalls
}

const needed = ["memory", "pids", "cpu"]

const files: Readonly<Record<LimitNeed, string>> = {
  "cpu-weight": "cpu.weight",
  "memory-high": "memory.high",
  swap: "memory.swap.max",
  "oom-group": "memory.oom.group",
  "io-weight": "io.weight",
  "io-max": "io.max"
}

const lacks = (version: "v1" | "v2", need: LimitNeed) => {
  if (need === "swap") {
    return { reason: "this kernel does not account swap for each cgroup", remedy: "boot with swapaccount=1" }
  }
  if (version === "v2") {
    return { reason: `this kernel offers no ${files[need]} here`, remedy: "delegate the io controller to the worker" }
  }
  return need === "io-max"
    ? {
      reason: "the worker was started without limits of I/O",
      remedy: "give its class a ceiling of ioRead or ioWrite, so that it uses the blkio controller"
    }
    : {
      reason: "cgroup v1 does not have it",
      remedy: "boot with cgroup v2 (systemd.unified_cgroup_hierarchy=1), or leave the limit out"
    }
}

const unreadable = (cause: CgroupError) =>
  new CgroupUnavailable({ missing: needed, reason: cause.reason, remedy: "mount /proc", cause })

/**
 * The cgroups of this host. Building it makes `stoker-<instance>` and enables its controllers, so that what is missing
 * is known before the first job; closing it removes the directory if it is empty, and leaves the rest to the janitor,
 * whom the record tells where to look.
 */
export const layer = (options: CgroupsOptions): Layer.Layer<Cgroups, CgroupUnavailable> =>
  Layer.effect(Cgroups, make(options))

const make = Effect.fnUntraced(function*(options: CgroupsOptions) {
  const fs = CgroupFs.make(options.syscalls)
  const proc = options.proc ?? "/proc"
  const swaps = `${proc}/swaps`
  const mounts = Mounts.parseMounts(yield* Effect.mapError(fs.read(`${proc}/self/mountinfo`), unreadable))
  const own = Mounts.parseOwn(yield* Effect.mapError(fs.read(`${proc}/self/cgroup`), unreadable))

  const onV1 = mounts.some((mount) =>
    mount.version === "v1" && mount.controllers.some((controller) => needed.includes(controller))
  )
  const version = options.version ?? (onV1 ? "v1" : "v2")
  const v2Mount = mounts.find((mount) => mount.version === "v2")

  const hierarchy: Hierarchy = version === "v1"
    ? yield* V1.make({ fs, mounts, own, swaps, io: options.io ?? false, cpuset: options.cpuset ?? false })
    : yield* Effect.gen(function*() {
      const required = [...(options.controllers ?? needed), ...(options.cpuset === true ? ["cpuset"] : [])]
      if (v2Mount === undefined) {
        return yield* new CgroupUnavailable({
          missing: required,
          reason: "no cgroup filesystem is mounted as v2",
          remedy: "mount -t cgroup2 none /sys/fs/cgroup"
        })
      }
      const place = yield* V2Delegation.find({
        fs,
        mount: v2Mount,
        own: own.get("") ?? "/",
        pid: process.pid,
        required,
        optional: required.length === 0 ? [] : ["io"]
      })
      return yield* V2.make({ fs, swaps, ...place })
    })

  const instance = Instance.make(fs, hierarchy, options.instance)
  const { record } = options
  yield* Effect.addFinalizer(() =>
    instance.remove.pipe(
      Effect.andThen(record?.drop ?? Effect.void),
      Effect.ignore({ log: "Warn", message: "cgroups of this worker are not gone yet, left to the next one's janitor" })
    )
  )
  yield* (record?.write(instance.directories) ?? Effect.void).pipe(
    Effect.andThen(instance.prepare),
    Effect.mapError((cause) =>
      new CgroupUnavailable({
        missing: [],
        reason: `stoker-${options.instance} cannot be made: ${cause.reason}`,
        remedy: cause.remedy,
        cause
      })
    )
  )

  const offered = v2Mount === undefined
    ? ""
    : yield* Effect.orElseSucceed(fs.read(`${v2Mount.mountPoint}/cgroup.controllers`), () => "")

  if (version === "v1" && options.io === true) {
    yield* Effect.logWarning(
      "Limits of I/O hold direct and synchronous writes only: cgroup v1 does not see what the kernel writes back later."
    )
  }
  const held = yield* Effect.filter(limitNeeds, (need) => hierarchy.holds(need, instance.directories))
  return Cgroups.of({
    version,
    holds: new Set(held),
    lacks: (need) => lacks(version, need),
    hybridMount: onV1 && v2Mount !== undefined && offered.trim() !== ""
      ? Option.some(v2Mount.mountPoint)
      : Option.none(),
    make: instance.make,
    open: instance.open,
    directories: instance.directories,
    removeInstance: instance.remove,
    instances: Effect.map(
      Effect.forEach(hierarchy.roots, ({ base }) => fs.directories(base)),
      (names) => [...new Set(names.flat().flatMap((name) => Instance.fromDirectory(name) ?? []))].toSorted()
    ),
    forInstance: (other, recorded) => Instance.make(fs, hierarchy, other, recorded)
  })
})
