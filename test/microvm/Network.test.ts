/** What a worker keeps of the host's network for its machines, and gives back at its end. */
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, Layer } from "effect"
import { afterAll, beforeAll } from "vitest"
import { Drivers } from "../../src/layers/sandbox/Sandbox.ts"
import { layerDrivers } from "../../src/wiring.ts"
import * as World from "../network/World.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import { patience } from "../support/Slowness.ts"
import * as Rig from "./Rig.ts"

describe("networks of machines", () => {
  const state = Jobs.stateDirectory()
  const { env, leases } = World.places(state)
  let world: World.World
  beforeAll(async () => {
    world = await World.World.make()
  }, World.TURN)
  afterAll(async () => {
    Jobs.remove(state)
    await world.end()
  })

  it.live("leave no rules on the host when their worker ends in order", () =>
    Effect.gen(function*() {
      const sandboxClass = { ...Rig.machineClass({ snapshot: false }), network: "internet" as const }
      const { diskBytes: bytes, diskInodes: inodes } = sandboxClass.defaults
      yield* Effect.gen(function*() {
        const [driver] = yield* Drivers
        if (driver === undefined) return yield* Effect.die("no driver")
        // It comes as far as its network: this VMM ends at once.
        const error = yield* Effect.flip(Effect.scoped(driver.provision(sandboxClass, { bytes, inodes })))
        assert.strictEqual(error.step, "start", error.message)
        assert.lengthOf(World.traces().tables, 1)
      }).pipe(
        Effect.provide(
          Layer.fresh(layerDrivers(state, ["qemu"])).pipe(
            Layer.provide(
              ConfigProvider.layer(
                ConfigProvider.fromEnvRecord({ PATH: process.env["PATH"] ?? "", ...env, STOKER_QEMU: "/bin/false" })
              )
            )
          )
        )
      )
      assert.deepStrictEqual(World.held(leases, []), World.nothing)
      assert.deepStrictEqual(World.chains(), [])
    }), patience(60_000))
})
