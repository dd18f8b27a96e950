/** Networks of machines on the host of a `World`, by the product's own code and without anything that would run in them. */
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import { mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import type * as NetworkHost from "../../src/layers/network/NetworkHost.ts"
import { SandboxId } from "../../src/schemas/Ids.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import { instance, make, shelter } from "./machineHost.ts"
import * as World from "./World.ts"

interface Options extends Partial<Parameters<typeof NetworkHost.make>[0]> {
  readonly env?: Readonly<Record<string, string>>
}

/** A folder for one suite, with plugins and configurations of its own. */
export const rig = () => {
  const state = Jobs.stateDirectory()
  const { configurations, env, leases } = World.places(state)
  const ids = Array.from({ length: 6 }, (_, n) => SandboxId.make(`machine${n}000000000000`))
  const [one, two] = [SandboxId.make("machine0000000000000"), SandboxId.make("machine1000000000000")]
  mkdirSync(join(state, "plugins"))
  const held = () => ({ ...World.held(leases, [shelter, ...ids]), chains: World.chains() })
  const nothing = { ...World.nothing, chains: [] as ReadonlyArray<string> }
  const conflist = (name: string, list: object) =>
    writeFileSync(join(configurations, `${name}.conflist`), JSON.stringify(list))
  return {
    state,
    env,
    leases,
    ids,
    one,
    two,
    held,
    nothing,
    conflist,
    plugin: (name: string, body: string) =>
      writeFileSync(join(state, "plugins", name), `#!/bin/sh\n${body}\n`, { mode: 0o755 }),
    network: (name: string, ...plugins: ReadonlyArray<object>) =>
      conflist(name, { cniVersion: "1.0.0", name, plugins, stoker: { masquerade: true } }),
    /** All rows of the test are let go at its end, which must leave nothing. */
    rows: ({ env: more, ...options }: Options = {}) =>
      Effect.acquireRelease(make(state, { ...env, ...more }, options), (host) =>
        Effect.gen(function*() {
          for (const id of [...ids, shelter]) yield* host.release(instance, id)
          assert.deepStrictEqual(held(), nothing)
          assert.isFalse([...ids, shelter].some((id) => host.isHeld(instance, id)))
        }).pipe(Effect.orDie)),
    end: () => Jobs.remove(state)
  }
}

/** Runs in a row's namespace, as the host's own programs do. */
export const within = (id: SandboxId, ...argv: ReadonlyArray<string>) =>
  World.sh("nsenter", `--net=/run/netns/stoker-${id}`, ...argv)
