import { type Clock, Duration, Effect, Result } from "effect"
import { type Cgroup, CgroupError } from "./Cgroup.ts"
import type { CgroupFs } from "./CgroupFs.ts"
import type { LeafOperations } from "./Hierarchy.ts"

/** A killed process is gone within a few ms; one that is not after this is stuck in the kernel. */
const killLimit = Duration.seconds(1)
/** How long one round of signals may take effect before the next looks for processes that were forked meanwhile. */
const exitLimit = Duration.millis(20)
/** Freezing waits for each process to come out of its system call. */
const freezeLimit = Duration.seconds(1)
/** rmdir says EBUSY until the last exit is through, some milliseconds after the process is out of `cgroup.procs`. */
const removeLimit = Duration.millis(250)

/**
 * Repeats a check until it is true, in steps of 1, 2, 4, ... 16 ms; false after `limit`. By a deadline of its own, as
 * `Effect.timeout` would not end it inside a finalizer. The clock is the monotonic one: kernels take no notice of dates.
 */
const until = Effect.fnUntraced(function*<E>(limit: Duration.Input, check: Effect.Effect<boolean, E>) {
  const now = Effect.clockWith((clock: Clock.Clock) => clock.monotonicTimeNanos)
  const total = Duration.fromInputUnsafe(limit)
  const deadline = Duration.isFinite(total)
    ? (yield* now) + BigInt(Math.ceil(Duration.toMillis(total) * 1e6))
    : undefined
  for (let millis = 1;; millis = Math.min(millis * 2, 16)) {
    if (yield* check) return true
    if (deadline !== undefined && (yield* now) >= deadline) return false
    yield* Effect.sleep(millis)
  }
})

/** rmdir of a group, after that of empty groups below it. What is gone already is a success. */
const removeTree = (fs: CgroupFs, directory: string): Effect.Effect<void, CgroupError> =>
  fs.rmdir(directory).pipe(
    Effect.catchIf((error) => error.code === "ENOENT", () => Effect.void),
    // Groups below are looked for only now: nearly no leaf has any.
    Effect.catchIf((error) => error.code === "EBUSY" || error.code === "ENOTEMPTY", (busy) =>
      Effect.flatMap(fs.directories(directory), (below) =>
        below.length === 0 ? Effect.fail(busy) : Effect.andThen(
          Effect.forEach(below, (name) =>
            removeTree(fs, `${directory}/${name}`), { discard: true }),
          removeTree(fs, directory)
        )))
  )

/** Removes directories, waiting a moment for exits. Tries all of them, and fails with the first failure. */
export const removeAll = Effect.fnUntraced(function*(
  directories: ReadonlyArray<string>,
  rmdir: (directory: string) => Effect.Effect<void, CgroupError>
) {
  let left = directories
  let failures: Array<CgroupError> = []
  yield* until(
    removeLimit,
    Effect.gen(function*() {
      const tried = left
      left = []
      failures = []
      for (const directory of tried) {
        const result = yield* Effect.result(rmdir(directory))
        if (Result.isSuccess(result)) continue
        left = [...left, directory]
        failures.push(result.failure)
      }
      return failures.every(({ code }) => code !== "EBUSY")
    })
  )
  if (failures[0] !== undefined) return yield* failures[0]
})

/** The handle of one leaf, of what its version can do. */
export const make = (fs: CgroupFs, directories: ReadonlyArray<string>, operations: LeafOperations): Cgroup => {
  const path = directories[0] ?? ""
  const { cpu, isEmpty, limit, memory, now, pids, pressure, resetPeak, thaw, usage } = operations

  const kill = Effect.gen(function*() {
    if (yield* isEmpty) return
    if (yield* until(killLimit, Effect.andThen(operations.killOnce, until(exitLimit, isEmpty)))) return
    const left = yield* pids
    return yield* new CgroupError({
      operation: "kill",
      path,
      reason: `processes ${left.join(", ")} are still there ${Duration.format(killLimit)} after SIGKILL`,
      remedy: "they are stuck in the kernel (state D in ps): look at the device or mount they wait for"
    })
  }).pipe(Effect.withSpan("Cgroup.kill", { attributes: { path } }))

  const dissolve = Effect.gen(function*() {
    for (const directory of directories) {
      const gone = yield* fs.rmdir(directory).pipe(
        Effect.as(true),
        Effect.catchIf((error) => error.code === "ENOENT", () => Effect.succeed(true)),
        Effect.catchIf((error) => error.code === "EBUSY" || error.code === "ENOTEMPTY", () => Effect.succeed(false))
      )
      if (!gone) return false
    }
    yield* operations.forget
    return true
  })

  const freeze = Effect.gen(function*() {
    yield* operations.freeze
    if (yield* until(freezeLimit, operations.isFrozen)) return
    yield* Effect.ignore(thaw)
    return yield* new CgroupError({
      operation: "freeze",
      path,
      reason: `not all of its processes stopped within ${Duration.format(freezeLimit)}`,
      remedy: "one waits in the kernel (state D in ps): try again, or kill the group"
    })
  })

  return {
    path,
    procsFiles: directories.map((directory) => `${directory}/cgroup.procs`),
    limit,
    usage,
    now,
    cpu,
    memory,
    pressure,
    resetPeak,
    pids,
    kill,
    freeze,
    thaw,
    isEmpty,
    awaitEmpty: (timeout) => until(timeout, isEmpty),
    dissolve,
    remove: removeAll(directories, (directory) => removeTree(fs, directory)).pipe(
      Effect.ensuring(operations.forget),
      Effect.withSpan("Cgroup.remove", { attributes: { path } })
    )
  }
}

/** The handle of a leaf that cannot be: every operation fails in the same way. */
export const refused = (path: string, error: CgroupError): Cgroup => {
  const fail = Effect.fail(error)
  return {
    path,
    procsFiles: [],
    limit: () => fail,
    usage: fail,
    now: fail,
    cpu: fail,
    memory: fail,
    pressure: fail,
    resetPeak: Effect.succeed(false),
    pids: fail,
    kill: fail,
    freeze: fail,
    thaw: fail,
    isEmpty: fail,
    awaitEmpty: () => fail,
    dissolve: fail,
    remove: fail
  }
}
