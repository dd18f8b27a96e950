/** What is asked of a cluster for one container, as far as no cluster has to be asked. */
import { assert, describe, it } from "@effect/vitest"
import { manifestOf } from "../../src/layers/kubernetes/Manifest.ts"
import type { Container } from "../../src/schemas/Container.ts"
import { IntakeName, JobId, Owner } from "../../src/schemas/Ids.ts"
import { standardDefaults } from "../../src/schemas/Limits.ts"
import type { ClusterSetup } from "../../src/schemas/SandboxClass.ts"

const containerOf = (more: Partial<Container>, setup: ClusterSetup = { storeSecret: "store" }) => {
  const job = manifestOf({
    container: { image: "debian:12", name: "test-job", env: {}, secrets: {}, ...more },
    key: { intake: IntakeName.make("mstc"), owner: Owner.make("mstc"), id: JobId.make("one") },
    requestHash: "0",
    attempt: 1,
    limits: standardDefaults,
    setup,
    namespace: "jobs"
  })
  return job.spec?.template.spec?.containers[0]
}

describe("a cluster's Job", () => {
  it("shows the store's secret to those who go there, and to no others", () => {
    const shown = [{ secretRef: { name: "store" } }]
    assert.deepStrictEqual(containerOf({ buckets: { input: "in-put" } })?.envFrom, shown)
    assert.deepStrictEqual(containerOf({ store: true })?.envFrom, shown)
    assert.isUndefined(containerOf({})?.envFrom)
    assert.isUndefined(containerOf({ store: false })?.envFrom)
    assert.isUndefined(containerOf({ store: true }, {})?.envFrom)
  })

  it("takes what a job wrote as it is", () => {
    const made = containerOf({ env: { A: "$(HOME) $$ $x" }, command: ["/bin/echo"], args: ["$(A)"] })
    assert.deepStrictEqual(made?.env, [{ name: "A", value: "$$(HOME) $$$$ $$x" }])
    assert.deepStrictEqual(made?.args, ["$$(A)"])
  })
})
