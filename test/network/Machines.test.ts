import { describe } from "vitest"
import { inWorld } from "./inWorld.ts"
import { machineFaultSuite } from "./machineFaultSuite.ts"
import { machineReachSuite } from "./machineReachSuite.ts"

describe("networks of machines", () => {
  inWorld(machineReachSuite, machineFaultSuite)
})
