/**
 * A worker as a program embeds it, for tests that kill it. `node program.ts STATE SLOTS LEASE_MS
 * [DISK_RESERVE_BYTES]`, AMQP_URL, STOKER_JOURNAL, TEST_NETWORK (of its sandboxes), TEST_STORE (an object store, and images that jobs
 * may bring) and TEST_CLUSTER (a kubeconfig: its only class is that cluster) in the environment.
 */
import { Effect, Redacted, Schema } from "effect"
import { ClassName } from "../../src/schemas/Ids.ts"
import { standardObjectStore } from "../../src/schemas/ObjectStoreConfig.ts"
import { standardPool } from "../../src/schemas/PoolConfig.ts"
import type { SandboxClass } from "../../src/schemas/SandboxClass.ts"
import { standardClass, standardConfig } from "../../src/schemas/WorkerConfig.ts"
import { layerPostgres, layerWorker } from "../../src/wiring.ts"
import { serve } from "./serve.ts"

const TestStore = Schema.Struct({
  endpoint: Schema.String,
  accessKey: Schema.String,
  secretKey: Schema.String,
  /** What they begin with. */
  images: Schema.String
})

const [state = "", slots = "2", leaseMs = "30000", diskReserveBytes] = process.argv.slice(2)
const url = process.env["AMQP_URL"]
const journal = process.env["STOKER_JOURNAL"]

const store = process.env["TEST_STORE"]
const { accessKey, endpoint, images, secretKey } = Schema.decodeSync(Schema.fromJsonString(TestStore))(
  store ?? "{\"endpoint\":\"\",\"accessKey\":\"\",\"secretKey\":\"\",\"images\":\"none\"}"
)
const kubeconfig = process.env["TEST_CLUSTER"]

const sandboxes: SandboxClass = {
  ...standardClass("oci", "oci"),
  images: { allow: [images] },
  network: process.env["TEST_NETWORK"] === "internet" ? "internet" : "none",
  pool: { ...standardPool, minimum: 2, maximum: 4, refillPauseMs: 5 }
}

const worker = layerWorker({
  stateDirectory: state,
  config: {
    ...standardConfig,
    slots: Number(slots),
    leaseMs: Number(leaseMs),
    ...(diskReserveBytes === undefined ? {} : { diskReserveBytes: Number(diskReserveBytes) }),
    ...(kubeconfig === undefined ? { classes: [sandboxes] } : {
      classes: [{ ...standardClass("cluster", "kubernetes"), cluster: { kubeconfig, namespace: "jobs" } }],
      defaultClass: ClassName.make("cluster")
    }),
    ...(store === undefined ? {} : { objectStore: { ...standardObjectStore, endpoint } })
  },
  ...(store === undefined ? {} : {
    objectStore: { accessKey: Redacted.make(accessKey), secretKey: Redacted.make(secretKey) }
  }),
  embedded: true,
  direct: "direct",
  ...(journal === undefined ? {} : { journal: layerPostgres({ postgres: Redacted.make(journal) }) }),
  ...(url === undefined ? {} : {
    amqp: {
      url: Redacted.make(url),
      onStatus: (status) =>
        Effect.sync(() =>
          void process.stdout.write(status.connected && status.queues.length >= 5 ? "connected\n" : "cut off\n")
        )
    }
  })
})

serve(worker)
