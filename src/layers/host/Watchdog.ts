/** Starts the tiny process that outlives the worker by a second, only to kill what the worker left running. */
import { Context, Deferred, Effect, Layer, Option } from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { mkdir } from "node:fs/promises"
import { join } from "node:path"
import { Cgroups } from "../cgroup/Cgroup.ts"
import { Ledger } from "../ledger/Ledger.ts"
import { within } from "../Release.ts"
import { recordCgroups } from "./CgroupRecord.ts"
import { Host, HostError } from "./Host.ts"
import { clearInstanceFiles } from "./InstanceFiles.ts"
import { Native } from "./Native.ts"

/** Where the mount namespace shows `rootsOf` (watchdog.c). */
export const SHOWN_AT = "/mnt"

/** Root skeletons lie here, below an instance's directory that nobody else may search. */
export const rootsOf = (instanceDirectory: string) => join(instanceDirectory, "roots")

export class Watchdog extends Context.Service<Watchdog, {
  /**
   * A mount namespace for runtimes, as a path for `launch -n`; the watchdog lives in it and the host's own mounts are
   * untouched. It lacks the cgroup2 mount that crun refuses on hybrid hosts, and shows the instance's roots at
   * `SHOWN_AT`: crun looks for a root as the sandbox's mapped user, who may not search the state directory. For root only.
   */
  readonly mountNamespace: Option.Option<string>
  /** Ends if the watchdog does, which nothing of ours causes while the worker lives. */
  readonly died: Effect.Effect<never, HostError>
}>()("stoker/layers/host/Watchdog") {}

const failed = (reason: string, cause?: unknown) =>
  new HostError({
    operation: "start the watchdog",
    reason,
    remedy: "Run `stoker doctor`; without a watchdog a killed worker could leave jobs running, so none are taken.",
    ...(cause === undefined ? {} : { cause })
  })

const make = Effect.gen(function*() {
  const { watchdog } = yield* Native
  const cgroups = yield* Cgroups
  const host = yield* Host
  const ledger = yield* Ledger
  yield* Effect.addFinalizer(() =>
    ledger.rows(host.instance).pipe(
      Effect.flatMap((rows) => rows.length > 0 ? Effect.void : clearInstanceFiles(host.paths.instance(host.instance))),
      within("the instance's files", "2 seconds")
    )
  )
  const died = yield* Deferred.make<never, HostError>()
  yield* recordCgroups(host.paths.instance(host.instance), cgroups.directories)
  const roots = rootsOf(host.paths.instance(host.instance))
  yield* Effect.tryPromise({
    try: () => mkdir(roots, { mode: 0o711 }),
    catch: (cause) => failed(`${roots} could not be made`, cause)
  })
  const isRoot = process.getuid?.() === 0
  const args = [
    ...(isRoot ? ["-b", roots] : []),
    ...(isRoot ? Option.match(cgroups.hybridMount, { onNone: () => [], onSome: (mount) => ["-u", mount] }) : []),
    ...cgroups.directories.flatMap((directory) => ["-c", directory])
  ]
  const child = yield* Effect.acquireRelease(
    Effect.sync(() => {
      const process = spawn(watchdog, args, { stdio: ["pipe", "pipe", "pipe"] })
      process.stdin.on("error", () => {}) // it is told of by `exit`
      return process
    }),
    // "keep": an orderly end, the scopes have killed everything already.
    (process) =>
      Effect.promise(async () => {
        if (process.exitCode !== null || process.signalCode !== null) return
        const gone = once(process, "exit")
        process.stdin.end("keep\n")
        await gone
      }).pipe(within("the watchdog", "2 seconds"))
  )
  let complaint = ""
  child.stderr.on("data", (bytes: Buffer) => {
    complaint = (complaint + bytes.toString("utf8")).slice(0, 1000)
  })
  const end = (reason: string) => Deferred.doneUnsafe(died, Effect.fail(failed(`${reason} ${complaint.trim()}`.trim())))
  child.on("error", (error) => end(error.message))
  child.on("exit", (code, signal) => end(`it ended (${signal ?? code})`))
  yield* Effect.callback<void>((resume) => {
    child.stdout.once("data", () => resume(Effect.void))
  }).pipe(
    Effect.raceFirst(Deferred.await(died)),
    Effect.timeoutOrElse({
      duration: "5 seconds",
      orElse: () => Effect.fail(failed("it did not say that it is ready"))
    })
  )
  return Watchdog.of({
    mountNamespace: isRoot ? Option.some(`/proc/${child.pid}/ns/mnt`) : Option.none(),
    died: Deferred.await(died)
  })
})

export const layer = Layer.effect(Watchdog, make)
