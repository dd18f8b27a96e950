import { describe } from "vitest"
import { hostSuite } from "./hostSuite.ts"
import { inWorld } from "./inWorld.ts"
import { ociSuite } from "./ociSuite.ts"
import { workerSuite } from "./workerSuite.ts"

describe("networks of sandboxes", () => {
  inWorld(ociSuite, hostSuite, workerSuite)
})
