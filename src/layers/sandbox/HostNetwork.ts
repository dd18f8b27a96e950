/** Networks for a driver's sandboxes: where their programs run, and whom they belong to. */
import { Deferred, Effect } from "effect"
import { Cgroups } from "../cgroup/Cgroup.ts"
import { Native } from "../host/Native.ts"
import * as NetworkHost from "../network/NetworkHost.ts"
import { once } from "../Once.ts"
import type { HostSandbox, Recipe } from "./HostSandbox.ts"
import type { ProvisionFailed } from "./Sandbox.ts"

/** `plain` is a recipe without a network: whatever runs for networks gets its row and cgroup by it. */
export const make = Effect.fnUntraced(function*(hosted: HostSandbox, plain: () => Recipe) {
  const { launch } = yield* Native
  const cgroups = yield* Cgroups
  const scope = yield* Effect.scope
  const { host } = hosted

  /** One row and one cgroup from the first sandbox with a network to the worker's end. */
  const shelter = yield* once(Effect.gen(function*() {
    const opened = yield* Deferred.make<NetworkHost.Shelter, ProvisionFailed>()
    yield* hosted.aside(
      plain(),
      (id, procsFiles) => Effect.andThen(Deferred.succeed(opened, { id, procsFiles }), Effect.never)
    ).pipe(
      Effect.catch((error) => Deferred.fail(opened, error)),
      Effect.forkIn(scope)
    )
    return yield* Deferred.await(opened)
  }))

  return yield* NetworkHost.make({
    instance: host.instance,
    instanceDirectory: (instance) => hosted.instancePath(instance),
    launch,
    shelter,
    kill: (instance, id) =>
      Effect.flatMap(host.cgroupsOf(instance), (recorded) => cgroups.forInstance(instance, recorded).open(id).kill)
  })
})
