/**
 * Plain processes of this host: limits of the cgroup hold, NOTHING is isolated. A job sees the host's files, network
 * and processes. For trusted jobs and for hosts without an OCI runtime; only by a class that names it.
 */
import { Effect } from "effect"
import { chownSync, mkdirSync } from "node:fs"
import * as HostSandbox from "./HostSandbox.ts"
import { type Driver, ProvisionFailed } from "./Sandbox.ts"
import { Native } from "../host/Native.ts"

/** `nobody`: jobs of a worker that is root are not. */
const NOBODY = 65_534

export const make = Effect.gen(function*() {
  const native = yield* Native
  const hosted = yield* HostSandbox.make
  const { host } = hosted
  const isRoot = process.getuid?.() === 0
  const user = isRoot ? ["--uid", String(NOBODY), "--gid", String(NOBODY)] : []
  const work = (id: string) => hosted.instancePath(host.instance, "work", id)

  const recipe: HostSandbox.Recipe = {
    driver: "process",
    ownPids: 1,
    command: (id) => [native.guest, "--work", work(id), ...user],
    paths: (instance, id) => [hosted.instancePath(instance, "work", id)],
    verify: () => Effect.void,
    prepare: (id) =>
      Effect.try({
        try: () => {
          mkdirSync(hosted.instancePath(host.instance, "work"), { recursive: true, mode: 0o711 })
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
    capabilities: new Set(["memory-limit", "cpu-limit", "pids-limit", "usage"]),
    provision: Effect.fn("Process.provision")(function*(sandboxClass) {
      return yield* hosted.provision(recipe, sandboxClass.ceiling)
    }),
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
