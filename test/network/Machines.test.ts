/** The same world with machines' networks in it: what they reach, and what goes wrong. */
import { afterAll, assert, beforeAll, describe } from "vitest"
import { machineFaultSuite } from "./machineFaultSuite.ts"
import { machineReachSuite } from "./machineReachSuite.ts"
import * as World from "./World.ts"

describe("networks of machines", () => {
  let world: World.World
  beforeAll(async () => {
    world = await World.World.make()
  }, World.TURN)
  afterAll(async () => {
    // Whatever the suites did: the host is as it was.
    assert.deepStrictEqual(World.traces(), { veths: [], tables: [] })
    await world.end()
  })
  machineReachSuite()
  machineFaultSuite()
})
