/** Networks of machines on the host of a `World`, by the product's own code and without anything that would run in them. */
import { assert } from "@effect/vitest"
import { ConfigProvider, Effect } from "effect"
import { mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import * as Native from "../../src/layers/host/Native.ts"
import * as NetworkHost from "../../src/layers/network/NetworkHost.ts"
import { InstanceId, SandboxId } from "../../src/schemas/Ids.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import * as World from "./World.ts"

export const instance = InstanceId.make("machines")
export const owner = { uid: 64_321, gid: 64_322 }

export const make = (
  state: string,
  options: Partial<Parameters<typeof NetworkHost.make>[0]> & { readonly env?: Readonly<Record<string, string>> } = {}
) =>
  Effect.gen(function*() {
    const { launch } = yield* Native.Native
    const { env: _, ...rest } = options
    return yield* NetworkHost.make({
      instance,
      instanceDirectory: (of) => join(state, of),
      launch,
      shelter: Effect.succeed({ id: SandboxId.make("machineshelter000000"), procsFiles: [] }),
      kill: () => Effect.void,
      limitMillis: 10_000,
      ...rest
    })
  }).pipe(
    Effect.provide(Native.layer),
    Effect.provideService(
      ConfigProvider.ConfigProvider,
      ConfigProvider.fromEnvRecord({
        ...World.places(state).env,
        PATH: process.env["PATH"] ?? "",
        STOKER_CNI_PATH: `${join(state, "plugins")}:/usr/lib/cni:/opt/cni/bin`,
        ...options.env
      })
    )
  )

/** A folder for one suite, with plugins and configurations of its own. */
export const rig = () => {
  const state = Jobs.stateDirectory()
  const { configurations, leases } = World.places(state)
  const shelter = SandboxId.make("machineshelter000000")
  const [one, two] = [SandboxId.make("machineone0000000000"), SandboxId.make("machinetwo0000000000")]
  const ids = [shelter, one, two]
  mkdirSync(join(state, "plugins"))
  const held = () => ({ ...World.held(leases, ids), chains: World.chains() })
  return {
    state,
    leases,
    one,
    two,
    shelter,
    held,
    nothing: { ...World.nothing, chains: [] as ReadonlyArray<string> },
    plugin: (name: string, body: string) =>
      writeFileSync(join(state, "plugins", name), `#!/bin/sh\n${body}\n`, { mode: 0o755 }),
    network: (name: string, ...plugins: ReadonlyArray<object>) =>
      writeFileSync(
        join(configurations, `${name}.conflist`),
        JSON.stringify({ cniVersion: "1.0.0", name, plugins, stoker: { masquerade: true } })
      ),
    conflist: (name: string, list: object) =>
      writeFileSync(join(configurations, `${name}.conflist`), JSON.stringify(list)),
    /** All rows of the test are let go at its end, which must leave nothing. */
    rows: (options?: Parameters<typeof make>[1]) =>
      Effect.acquireRelease(make(state, options), (host) =>
        Effect.gen(function*() {
          for (const id of [one, two, shelter]) yield* host.release(instance, id)
          assert.deepStrictEqual(held(), { ...World.nothing, chains: [] })
          assert.isFalse(ids.some((id) => host.isHeld(instance, id)))
        }).pipe(Effect.orDie)),
    end: () => Jobs.remove(state)
  }
}

/** Runs in a row's namespace, as the host's own programs do. */
export const within = (id: SandboxId, ...argv: ReadonlyArray<string>) =>
  World.sh("nsenter", `--net=/run/netns/stoker-${id}`, ...argv)
