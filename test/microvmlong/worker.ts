/** A worker whose jobs run in emulated machines with a way out. `node worker.ts STATE`; it says `up`, and ends in order at SIGTERM. */
import { Effect, Layer, Logger } from "effect"
import * as Worker from "../../src/actors/Worker.ts"
import { standardPool } from "../../src/schemas/PoolConfig.ts"
import { standardConfig } from "../../src/schemas/WorkerConfig.ts"
import { layerWorker } from "../../src/wiring.ts"
import { machineClass } from "../microvm/Rig.ts"

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
