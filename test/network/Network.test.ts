/** One file, one world: its suites look at the same host, one after the other. */
import { afterAll, assert, beforeAll, describe } from "vitest"
import { hostSuite } from "./hostSuite.ts"
import { ociSuite } from "./ociSuite.ts"
import { workerSuite } from "./workerSuite.ts"
import * as World from "./World.ts"

describe("networks of sandboxes", () => {
  let world: World.World
  beforeAll(async () => {
    world = await World.World.make()
  }, World.TURN)
  afterAll(async () => {
    // Whatever the suites did: the host is as it was.
    assert.deepStrictEqual(World.traces(), { veths: [], tables: [] })
    await world.end()
  })
  ociSuite()
  hostSuite()
  workerSuite()
})
