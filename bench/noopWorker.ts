/** Stoker with an executor that does nothing: all else is real. usage: noopWorker.ts STATE, AMQP_URL in the environment. */
import { Effect, Layer, Logger, Redacted, Stream } from "effect"
import * as Pools from "../src/actors/Pools.ts"
import { Worker } from "../src/actors/Worker.ts"
import { code } from "../src/functions/Code.ts"
import { command } from "../src/functions/Command.ts"
import * as ArtefactsFiles from "../src/layers/artefacts/ArtefactsFiles.ts"
import * as Settings from "../src/layers/config/Settings.ts"
import { Executor, type RunEvent } from "../src/layers/executor/Executor.ts"
import * as Functions from "../src/layers/functions/Functions.ts"
import * as DiskSpaceLive from "../src/layers/host/DiskSpaceLive.ts"
import * as Direct from "../src/layers/intake/Direct.ts"
import * as Embedded from "../src/layers/intake/Embedded.ts"
import * as JournalSqlite from "../src/layers/journal/JournalSqlite.ts"
import * as LogFiles from "../src/layers/log/LogFiles.ts"
import { Outcome } from "../src/schemas/Outcome.ts"
import { standardConfig } from "../src/schemas/WorkerConfig.ts"
import { layerActors, layerBroker, layerDoors, layerDrivers, noDoors } from "../src/wiring.ts"

const [state = ""] = process.argv.slice(2)

/** Deliveries in hand at once; the floor takes as many. */
const SLOTS = 128

const outcome = Outcome.cases.Exited.make({ phase: "run", code: 0 })
const nothing: ReadonlyArray<RunEvent> = [
  { _tag: "Ready", place: "", provisionMicros: 0 },
  { _tag: "Finished", outcome, usage: { phases: [] } }
]
const executor = Layer.succeed(
  Executor,
  Executor.of({
    start: () => Effect.succeed({ events: Stream.fromIterable(nothing), stop: () => Effect.void }),
    adopt: () => Effect.undefined
  })
)

const amqp = { url: Redacted.make(process.env["AMQP_URL"] ?? "") }
const layer = layerActors.pipe(
  Layer.provideMerge(Layer.mergeAll(executor, Pools.layer({}), Functions.layer([code, command]))),
  Layer.provideMerge(layerDoors({ amqp }, noDoors)),
  Layer.provideMerge(Layer.mergeAll(Direct.layer("direct"), Embedded.layer, layerBroker(amqp))),
  Layer.provideMerge(Layer.mergeAll(
    JournalSqlite.layerHost(),
    LogFiles.layer,
    ArtefactsFiles.layer,
    DiskSpaceLive.layer,
    Settings.layer({ ...standardConfig, slots: SLOTS })
  )),
  Layer.provideMerge(layerDrivers(state, [])),
  Layer.provideMerge(Logger.layer([]))
)

const program = Effect.gen(function*() {
  const { drain, failure } = yield* Worker
  process.stderr.write("consuming\n")
  const signalled = Effect.callback<void>((resume) => {
    process.once("SIGTERM", () => resume(Effect.void))
  })
  yield* Effect.raceFirst(failure, signalled)
  yield* drain
}).pipe(Effect.provide(layer))

await Effect.runPromise(program)
process.exit(0)
