/**
 * Plain processes of this host: limits of the cgroup hold, NOTHING is isolated. A job sees the host's files, network
 * and processes. For trusted jobs and for hosts without an OCI runtime; only by a class that names it.
 */
import { Effect } from "effect"
import { chownSync, mkdirSync } from "node:fs"
import { join } from "node:path"
import type { InstanceId } from "../../schemas/Ids.ts"
import { Native } from "../host/Native.ts"
import { rootsOf, SHOWN_AT } from "../host/Watchdog.ts"
import { once } from "../Once.ts"
import * as HostSandbox from "./HostSandbox.ts"
import { type Capability, type Driver, ProvisionFailed } from "./Sandbox.ts"

/** `nobody`: jobs of a worker that is root are not. */
const NOBODY = 65_534

/** The function host's directory among the workspaces, whose names are longer. */
const FUNCTIONS = "functions"

export const make = Effect.gen(function*() {
  const native = yield* Native
  const hosted = yield* HostSandbox.make
  const { host } = hosted
  const isRoot = process.getuid?.() === 0
  const user = isRoot ? ["--uid", String(NOBODY), "--gid", String(NOBODY)] : []
  const workIn = (instance: InstanceId, id: string) => join(rootsOf(hosted.instancePath(instance)), id)
  const work = (id: string) => workIn(host.instance, id)
  /** `nobody` may not search the state directory, but the mount namespace shows its roots elsewhere. */
  const seen = (id: string) => isRoot ? join(SHOWN_AT, id) : work(id)

  const { functions } = hosted
  const shown = join(SHOWN_AT, FUNCTIONS)
  /** Once per worker. `nobody` sees Node and the host's files by the mount namespace alone. */
  const prepare = yield* once(Effect.gen(function*() {
    if (functions === undefined || !isRoot) return
    yield* functions.copy(join(rootsOf(hosted.instancePath(host.instance)), FUNCTIONS))
    yield* functions.mount(shown)
  }))

  const recipe: HostSandbox.Recipe = {
    driver: "process",
    ...(functions === undefined ? {} : { functions: isRoot ? functions.in(shown) : functions.plain }),
    ownPids: 1,
    command: (id) => [native.guest, "--work", seen(id), ...user],
    sealed: false,
    env: (id) => ({ HOME: seen(id), TMPDIR: seen(id) }),
    paths: (instance, id) => [workIn(instance, id)],
    verify: () => Effect.void,
    prepare: (id) =>
      Effect.try({
        try: () => {
          mkdirSync(work(id), { mode: 0o700 })
          if (isRoot) chownSync(work(id), NOBODY, NOBODY)
        },
        catch: (cause) =>
          new ProvisionFailed({
            driver: "process",
            step: "start",
            reason: `the workspace ${work(id)} could not be made: ${String(cause)}`,
            remedy: "Is the state directory writable and not full?",
            cause
          })
      })
  }

  const driver: Driver = {
    name: "process",
    capabilities: new Set<Capability>(["memory-limit", "cpu-limit", "pids-limit", "usage", "own-cpu", ...hosted.holds]),
    provision: Effect.fn("Process.provision")(function*(sandboxClass) {
      if (sandboxClass.network !== "host") {
        return yield* new ProvisionFailed({
          driver: "process",
          step: "network",
          reason: `class ${sandboxClass.name} asks for a network of its own, and this driver isolates nothing`,
          remedy: "Use driver oci, or network host."
        })
      }
      yield* prepare
      return yield* hosted.provision(recipe, sandboxClass)
    }),
    accepts: hosted.accepts,
    reap: (row) => hosted.reap(recipe, row),
    check: Effect.succeed([{
      name: "isolation",
      status: "warning",
      detail: "none: jobs see the host's files, network and processes",
      remedy: "Use it for trusted jobs only."
    }])
  }
  return driver
})
