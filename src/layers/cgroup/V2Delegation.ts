import { Effect } from "effect"
import { CgroupError, CgroupUnavailable } from "./Cgroup.ts"
import type { CgroupFs } from "./CgroupFs.ts"
import * as Formats from "./Formats.ts"
import type { Root } from "./Hierarchy.ts"
import { type CgroupMount, directoryOf } from "./Mounts.ts"

/** Where on v2 the worker itself goes when its own cgroup must be free of processes. Same name in the systemd unit. */
export const workerLeaf = "stoker-worker"

/** What is needed to find a place on a v2 hierarchy. */
export interface DelegationOptions {
  readonly fs: CgroupFs
  readonly mount: CgroupMount
  /** The cgroup of this process on v2. */
  readonly own: string
  /** This process, as `cgroup.procs` shows it. */
  readonly pid: number
  readonly required: ReadonlyArray<string>
  readonly optional: ReadonlyArray<string>
}

const remedy =
  "start the worker alone in a delegated cgroup (systemd: Delegate=yes and DelegateSubgroup=stoker-worker)" +
  ", or as root with the host's cgroup namespace"

const words = (text: string) => text.split(/\s+/).filter((word) => word !== "")

/**
 * Finds a directory whose children can have the controllers, and enables them there. First choice is the worker's own
 * cgroup: limits on the worker as a whole stay above its jobs, and systemd expects nobody elsewhere. A group that gives
 * controllers to its children may not hold processes itself, so the worker moves into `stoker-worker` below it; it
 * never moves another process. Second choice is the root of the hierarchy, where that rule does not hold.
 */
export const find = Effect.fn("Cgroups.findDelegation")(function*(
  options: DelegationOptions
): Effect.fn.Return<{ readonly root: Root; readonly controllers: ReadonlyArray<string> }, CgroupUnavailable> {
  const { fs, mount, required } = options
  const directory = directoryOf(mount, options.own)
  const own = directory?.endsWith(`/${workerLeaf}`) ? directory.slice(0, -workerLeaf.length - 1) : directory

  const unavailable = (base: string, reason: string, missing: ReadonlyArray<string>, cause?: CgroupError) =>
    new CgroupUnavailable({ missing, reason: `${base}: ${reason}`, remedy, ...(cause === undefined ? {} : { cause }) })

  const leaveFor = Effect.fnUntraced(function*(base: string) {
    const others = Formats.pids(yield* fs.read(`${base}/cgroup.procs`)).filter((pid) => pid !== options.pid)
    if (others.length > 0) {
      return yield* new CgroupError({
        operation: "delegate",
        path: base,
        reason: `processes ${others.slice(0, 5).join(", ")} share the worker's cgroup`,
        remedy
      })
    }
    yield* fs.mkdir(`${base}/${workerLeaf}`).pipe(
      Effect.catchIf((error) => error.code === "EEXIST", () => Effect.void)
    )
    yield* fs.write(`${base}/${workerLeaf}/cgroup.procs`, 0) // 0 is whoever writes
  })

  const settle = Effect.fnUntraced(function*(base: string) {
    const offered = words(yield* fs.read(`${base}/cgroup.controllers`))
    const missing = required.filter((name) => !offered.includes(name))
    if (missing.length > 0) return yield* unavailable(base, `offers no ${missing.join(", ")} controller`, missing)
    const controllers = [...required, ...options.optional.filter((name) => offered.includes(name))]
    const enabled = words(yield* fs.read(`${base}/cgroup.subtree_control`))
    const absent = controllers.filter((name) => !enabled.includes(name))
    if (absent.length > 0) {
      // Only the root of the whole hierarchy has no type, and only it may hold processes and give out controllers.
      const isRoot = (yield* fs.readOptional(`${base}/cgroup.type`)) === undefined
      if (!isRoot && base === directory) yield* leaveFor(base)
      yield* fs.write(`${base}/cgroup.subtree_control`, absent.map((name) => `+${name}`).join(" "))
    }
    return { root: { mountPoint: mount.mountPoint, base }, controllers }
  })
  const at = (base: string) =>
    settle(base).pipe(
      Effect.catchTag("CgroupError", (error) =>
        Effect.fail(
          unavailable(base, `cannot give ${required.join(", ")} to its children: ${error.reason}`, [], error)
        ))
    )

  if (own === undefined) {
    return yield* unavailable(mount.mountPoint, `does not show ${options.own}, where the worker is`, required)
  }
  if (own === mount.mountPoint) return yield* at(own)
  return yield* at(own).pipe(
    Effect.catch((refused) =>
      at(mount.mountPoint).pipe(
        Effect.tap(() =>
          Effect.logWarning(`Jobs are outside the limits of the worker's own cgroup. ${refused.message}`)
        ),
        Effect.mapError(() => refused)
      )
    )
  )
})
