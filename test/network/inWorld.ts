/** One file, one world: its suites look at the same host, one after the other, and leave it as it was. */
import { afterAll, assert, beforeAll } from "vitest"
import * as World from "./World.ts"

/** To be called in a `describe`. */
export const inWorld = (...suites: ReadonlyArray<() => void>) => {
  let world: World.World
  beforeAll(async () => {
    world = await World.World.make()
  }, World.TURN)
  afterAll(async () => {
    assert.deepStrictEqual(World.traces(), { veths: [], tables: [] })
    await world.end()
  })
  for (const suite of suites) suite()
}
