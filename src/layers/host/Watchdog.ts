/** Starts the tiny process that outlives the worker by a second, only to kill what the worker left running. */
import { Context, Effect, Layer, Option } from "effect"
import { mkdir } from "node:fs/promises"
import { join } from "node:path"
import { Cgroups } from "../cgroup/Cgroup.ts"
import { Ledger } from "../ledger/Ledger.ts"
import { within } from "../Release.ts"
import * as Companion from "./Companion.ts"
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

const REMEDY = "Run `stoker doctor`; without a watchdog a killed worker could leave jobs running, so none are taken."

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
  const roots = rootsOf(host.paths.instance(host.instance))
  yield* Effect.tryPromise({
    try: () => mkdir(roots, { mode: 0o711 }),
    catch: (cause) =>
      new HostError({ operation: "start the watchdog", reason: `${roots} could not be made`, remedy: REMEDY, cause })
  })
  const isRoot = process.getuid?.() === 0
  const args = [
    ...(isRoot ? ["-b", roots] : []),
    ...(isRoot ? Option.match(cgroups.hybridMount, { onNone: () => [], onSome: (mount) => ["-u", mount] }) : []),
    ...cgroups.directories.flatMap((directory) => ["-c", directory])
  ]
  const { died, pid } = yield* Companion.start({
    name: "watchdog",
    program: watchdog,
    args,
    remedy: REMEDY,
    farewell: "keep\n" // an orderly end: the scopes have killed everything already
  })
  return Watchdog.of({
    mountNamespace: isRoot ? Option.some(`/proc/${pid}/ns/mnt`) : Option.none(),
    died
  })
})

export const layer = Layer.effect(Watchdog, make)
