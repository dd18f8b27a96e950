/**
 * A worker whose only class is a cluster, for tests that kill it. `node program.ts STATE KUBECONFIG SLOTS`. On `sample` it
 * says its memory: resident and heap, in bytes.
 */
import { Effect, Layer, Logger } from "effect"
import * as Worker from "../../src/actors/Worker.ts"
import { standardClass, standardConfig } from "../../src/schemas/WorkerConfig.ts"
import { layerWorker } from "../../src/wiring.ts"

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

const program = Effect.gen(function*() {
  const { drain, failure } = yield* Worker.Worker
  process.stdout.write("up\n")
  const signalled = Effect.callback<void>((resume) => {
    process.once("SIGTERM", () => resume(Effect.void))
  })
  yield* Effect.raceFirst(failure, signalled)
  yield* drain
}).pipe(Effect.provide(Layer.provideMerge(worker, Logger.layer([Logger.consoleLogFmt]))))

Effect.runPromise(program).then(
  () => process.exit(0),
  (error: unknown) => {
    process.stderr.write(`${String(error)}\n`)
    process.exit(1)
  }
)
