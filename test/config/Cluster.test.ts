/** Classes of driver kubernetes in a configuration file. */
import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import { DaemonConfig } from "../../src/schemas/DaemonConfig.ts"
import { readDaemonConfig } from "../../src/schemas/DaemonText.ts"
import { fileOf, workerConfigOf } from "../../src/schemas/DaemonWorker.ts"
import { faultLine } from "../../src/schemas/JsonDocument.ts"

const read = (classes: ReadonlyArray<object>, more: object = {}) =>
  readDaemonConfig(JSON.stringify({ ...more, classes }))

const faults = (one: object, more: object = {}): string =>
  Result.match(read([{ name: "c", driver: "kubernetes", ...one }], more), {
    onFailure: (found) => found.map(faultLine).join("\n"),
    onSuccess: () => ""
  })

describe("a class of driver kubernetes", () => {
  it("has its cluster, no pool, and comes back as it was written", () => {
    const cluster = {
      namespace: "jobs",
      storeSecret: "store",
      secrets: ["registry"],
      unschedulable: "90s",
      runAsUser: 1000
    }
    const config = workerConfigOf(Result.getOrThrow(read([{ name: "c", driver: "kubernetes", cluster }])))
    const [made] = config.classes
    assert.deepStrictEqual(made.cluster, {
      namespace: "jobs",
      storeSecret: "store",
      secrets: ["registry"],
      unschedulableMs: 90_000,
      runAsUser: 1000
    })
    assert.strictEqual(made.network, "host")
    assert.isUndefined(made.pool)
    const shown = Schema.encodeSync(DaemonConfig)(fileOf(config)).classes?.[0]
    assert.deepStrictEqual(shown?.cluster, { ...cluster, unschedulable: "90s" })
  })

  it("says nothing of sandboxes, of root, or of a network that no pod is held to", () => {
    assert.match(faults({ network: "none" }), /network is "none": expected nothing: what pods reach/)
    assert.match(faults({ root: { image: "debian:12" } }), /root is .*: expected nothing: it is for driver oci/)
    assert.match(faults({ pool: { minimum: 1 } }), /pool is .*: expected nothing/)
    assert.match(faults({ cluster: { runAsUser: 0 } }), /runAsUser/)
    assert.match(faults({ cluster: { secrets: ["A_B"] } }), /secrets.*A_B/)
    assert.match(faults({ cluster: { secrets: "all" } }), /secrets.*"all"/)
    assert.strictEqual(faults({ cluster: { secrets: "any" } }), "")
    assert.match(
      faults({ driver: "oci", cluster: { namespace: "x" } }),
      /cluster is .*: expected nothing: it is for driver kubernetes/
    )
    // What its jobs may use is not this host's.
    assert.strictEqual(faults({ ceiling: { memory: "64G" } }, { budget: { memory: "1G" } }), "")
  })
})
