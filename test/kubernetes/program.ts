/**
 * A worker whose only class is a cluster, for tests that kill it. `node program.ts STATE KUBECONFIG SLOTS`. On `sample` it
 * says its memory: resident and heap, in bytes.
 */
import { standardClass, standardConfig } from "../../src/schemas/WorkerConfig.ts"
import { layerWorker } from "../../src/wiring.ts"
import { serve } from "../worker/serve.ts"

const [state = "", kubeconfig = "", slots = "4"] = process.argv.slice(2)
const usual = standardClass("cluster", "kubernetes")

const worker = layerWorker({
  stateDirectory: state,
  config: {
    ...standardConfig,
    slots: Number(slots),
    waiting: 1000,
    leaseMs: 2000,
    drainMs: 500,
    classes: [{ ...usual, cluster: { kubeconfig, namespace: "jobs" } }],
    defaultClass: usual.name
  },
  embedded: true
})

process.stdin.on("data", () => {
  globalThis.gc?.()
  const { arrayBuffers, external, heapUsed, rss } = process.memoryUsage()
  process.stdout.write(`memory ${JSON.stringify({ rss, heapUsed, external, arrayBuffers })}\n`)
})

serve(worker)
