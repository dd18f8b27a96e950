/** What any driver and executor promise, kept by emulated machines: all cases, on a Debian with Python. */
import { afterAll, assert, describe, layer } from "@effect/vitest"
import { realpathSync } from "node:fs"
import { join, resolve } from "node:path"
import { casesFor } from "../../src/conformance/Case.ts"
import { driverCases } from "../../src/conformance/DriverCases.ts"
import { executorCases } from "../../src/conformance/ExecutorCases.ts"
import type { Capability } from "../../src/layers/sandbox/Sandbox.ts"
import * as Host from "../conformance/Host.ts"
import * as Rig from "../microvm/Rig.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import { patience } from "../support/Slowness.ts"

/** Emulated processors, and a cold start in each case whose workspace has another size. */
const SLOWNESS = 6
const LIMIT = patience(70_000 * SLOWNESS)

const state = Jobs.stateDirectory()
const sandboxClass = Rig.conformanceClass(realpathSync(resolve("build/machine-images/names/python")))
const capabilities: ReadonlySet<Capability> = await Host.capabilitiesOf("qemu")

describe("machines of QEMU conform", () => {
  afterAll(() => {
    const left = Rig.left(state, [])
    Jobs.remove(state)
    assert.deepStrictEqual(left, [])
  })
  const options: Host.Options = {
    sandboxClass,
    slowness: SLOWNESS,
    orphan: Host.orphanBy(join(import.meta.dirname, "../microvm/orphan.ts"))
  }
  layer(Host.layer("qemu", state, options), { excludeTestServices: true, timeout: LIMIT })("emulated", (it) => {
    it("can do what it must", () => {
      assert.includeMembers([...capabilities], [
        "isolation",
        "memory-limit",
        "cpu-limit",
        "pids-limit",
        "disk-limit",
        "usage"
      ])
    })
    for (const { check, name } of casesFor(executorCases, capabilities)) {
      it.effect(`executor: ${name}`, () => check, LIMIT)
    }
    for (const { check, name } of casesFor(driverCases, capabilities)) it.effect(`driver: ${name}`, () => check, LIMIT)
  })
})
