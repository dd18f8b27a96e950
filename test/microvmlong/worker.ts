/** A worker whose jobs run in emulated machines with a way out. `node worker.ts STATE`; it says `up`, and ends in order at SIGTERM. */
import { standardPool } from "../../src/schemas/PoolConfig.ts"
import { standardConfig } from "../../src/schemas/WorkerConfig.ts"
import { layerWorker } from "../../src/wiring.ts"
import { machineClass } from "../microvm/Rig.ts"
import { serve } from "../worker/serve.ts"

const [state = ""] = process.argv.slice(2)

const patient = { provisionMs: 120_000, healthMs: 60_000, failFastMs: 120_000 }

const worker = layerWorker({
  stateDirectory: state,
  config: {
    ...standardConfig,
    leaseMs: 5000,
    // However many workers die with a job, it goes to the next one.
    maxAttempts: 100,
    classes: [{
      ...machineClass({}, { ...standardPool, ...patient, minimum: 2, maximum: 2, parallel: 2 }),
      network: "internet"
    }]
  }
})

serve(worker)
