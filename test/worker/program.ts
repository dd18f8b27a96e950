/**
 * A worker as a program embeds it, for tests that kill it. `node program.ts STATE SLOTS LEASE_MS
 * [DISK_RESERVE_BYTES]`, AMQP_URL, STOKER_JOURNAL and TEST_NETWORK (of its sandboxes) in the environment.
 */
import { Effect, Redacted } from "effect"
import { standardPool } from "../../src/schemas/PoolConfig.ts"
import { standardClass, standardConfig } from "../../src/schemas/WorkerConfig.ts"
import { layerPostgres, layerWorker } from "../../src/wiring.ts"
import { serve } from "./serve.ts"

const [state = "", slots = "2", leaseMs = "30000", diskReserveBytes] = process.argv.slice(2)
const url = process.env["AMQP_URL"]
const journal = process.env["STOKER_JOURNAL"]

const worker = layerWorker({
  stateDirectory: state,
  config: {
    ...standardConfig,
    slots: Number(slots),
    leaseMs: Number(leaseMs),
    ...(diskReserveBytes === undefined ? {} : { diskReserveBytes: Number(diskReserveBytes) }),
    classes: [{
      ...standardClass("oci", "oci"),
      network: process.env["TEST_NETWORK"] === "internet" ? "internet" : "none",
      pool: { ...standardPool, minimum: 2, maximum: 4, refillPauseMs: 5 }
    }]
  },
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
