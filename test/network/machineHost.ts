/** The product's networks, for whoever is a worker in these tests: in their own process, or in one that is killed. */
import { ConfigProvider, Effect } from "effect"
import { join } from "node:path"
import * as Native from "../../src/layers/host/Native.ts"
import * as NetworkHost from "../../src/layers/network/NetworkHost.ts"
import { InstanceId, SandboxId } from "../../src/schemas/Ids.ts"

export const instance = InstanceId.make("machines")
export const shelter = SandboxId.make("machineshelter000000")
export const owner = { uid: 64_321, gid: 64_322 }

/** `env` is what `World.places` gives. */
export const make = (
  state: string,
  env: Readonly<Record<string, string>>,
  options: Partial<Parameters<typeof NetworkHost.make>[0]> = {}
) =>
  Effect.gen(function*() {
    const { launch } = yield* Native.Native
    return yield* NetworkHost.make({
      instance,
      instanceDirectory: (of) => join(state, of),
      launch,
      shelter: Effect.succeed({ id: shelter, procsFiles: [] }),
      kill: () => Effect.void,
      limitMillis: 10_000,
      ...options
    })
  }).pipe(
    Effect.provide(Native.layer),
    Effect.provideService(
      ConfigProvider.ConfigProvider,
      ConfigProvider.fromEnvRecord({
        PATH: process.env["PATH"] ?? "",
        STOKER_CNI_PATH: `${join(state, "plugins")}:/usr/lib/cni:/opt/cni/bin`,
        ...env
      })
    )
  )
