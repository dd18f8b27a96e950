/** Runs the conformance cases of a driver of this host, and of its executor, under vitest. */
import { afterAll, assert, describe, layer } from "@effect/vitest"
import { casesFor } from "../../src/conformance/Case.ts"
import { driverCases } from "../../src/conformance/DriverCases.ts"
import { executorCases } from "../../src/conformance/ExecutorCases.ts"
import type { Capability } from "../../src/layers/sandbox/Sandbox.ts"
import type { DriverName } from "../../src/schemas/SandboxClass.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import { patience } from "../support/Slowness.ts"
import * as Host from "./Host.ts"

/** All that they promise, with what the driver must be able to do wherever it runs. */
export const suite = async (driver: DriverName, required: ReadonlyArray<Capability>) => {
  const state = Jobs.stateDirectory()
  const capabilities = await Host.capabilitiesOf(driver)

  describe(`${driver} conforms`, () => {
    afterAll(() => {
      const left = Jobs.held(state)
      Jobs.remove(state)
      assert.deepStrictEqual(left, { processes: 0, cgroups: 0, mounts: 0, ledger: [], crun: 0, instances: 0 })
    })

    // Named: without a name the layer closes after as many runs as there are tests, those of second tries included.
    layer(Host.layer(driver, state), { excludeTestServices: true, timeout: patience(60_000) })("on this host", (it) => {
      it("can do what it must, wherever it runs", () => {
        assert.includeMembers([...capabilities], [...required])
      })
      for (const { check, name } of casesFor(executorCases, capabilities)) {
        it.effect(`executor: ${name}`, () => check, patience(70_000))
      }
      for (const { check, name } of casesFor(driverCases, capabilities)) {
        it.effect(`driver: ${name}`, () => check, patience(70_000))
      }
    })
  })
}
