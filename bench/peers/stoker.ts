/** Stoker's embedded queue with an executor that does nothing: journal, log and statuses are real. usage: stoker.ts STATE */
import { Effect, Exit, Layer, Logger, Scope, Stream } from "effect"
import * as Pools from "../../src/actors/Pools.ts"
import { Worker } from "../../src/actors/Worker.ts"
import { code } from "../../src/functions/Code.ts"
import { command } from "../../src/functions/Command.ts"
import * as ArtefactsFiles from "../../src/layers/artefacts/ArtefactsFiles.ts"
import * as Settings from "../../src/layers/config/Settings.ts"
import { Control } from "../../src/layers/control/Control.ts"
import { Executor, type RunEvent } from "../../src/layers/executor/Executor.ts"
import * as Functions from "../../src/layers/functions/Functions.ts"
import * as DiskSpaceLive from "../../src/layers/host/DiskSpaceLive.ts"
import * as Direct from "../../src/layers/intake/Direct.ts"
import * as Embedded from "../../src/layers/intake/Embedded.ts"
import { requestHash } from "../../src/layers/intake/RequestHash.ts"
import { Journal } from "../../src/layers/journal/Journal.ts"
import * as JournalSqlite from "../../src/layers/journal/JournalSqlite.ts"
import * as LogFiles from "../../src/layers/log/LogFiles.ts"
import { FunctionName, IntakeName, JobId, Owner } from "../../src/schemas/Ids.ts"
import type { Job } from "../../src/schemas/Job.ts"
import { Outcome } from "../../src/schemas/Outcome.ts"
import { standardConfig } from "../../src/schemas/WorkerConfig.ts"
import { layerActors, layerBroker, layerDoors, layerDrivers, noDoors } from "../../src/wiring.ts"
import { began, CONCURRENCY, measure } from "./measure.mjs"

const [state = ""] = process.argv.slice(2)

const finished: RunEvent = {
  _tag: "Finished",
  outcome: Outcome.cases.Exited.make({ phase: "run", code: 0 }),
  usage: { phases: [] }
}
const executor = Layer.succeed(
  Executor,
  Executor.of({
    start: ({ job }) =>
      Effect.sync(() => {
        began(Number(job.id))
        return { events: Stream.make(finished), stop: () => Effect.void }
      }),
    adopt: () => Effect.undefined
  })
)

const layer = layerActors.pipe(
  Layer.provideMerge(Layer.mergeAll(executor, Pools.layer({}), Functions.layer([code, command]))),
  Layer.provideMerge(layerDoors({}, noDoors)),
  Layer.provideMerge(Layer.mergeAll(Direct.layer("direct"), Embedded.layer, layerBroker(undefined))),
  Layer.provideMerge(Layer.mergeAll(
    JournalSqlite.layerHost(),
    LogFiles.layer,
    ArtefactsFiles.layer,
    DiskSpaceLive.layer,
    Settings.layer({ ...standardConfig, slots: CONCURRENCY })
  )),
  Layer.provideMerge(layerDrivers(state, [])),
  Layer.provideMerge(Logger.layer([]))
)

const requestOf = (n: number) => {
  const job: Job = {
    id: JobId.make(String(n)),
    owner: Owner.make("bench"),
    intake: IntakeName.make("embedded"),
    function: FunctionName.make("command"),
    args: { argv: ["true"] },
    limits: {}
  }
  return { job, hash: requestHash(job), reply: null }
}

/** Through the worker while one runs, else as another process would. */
let submit: (n: number) => Effect.Effect<unknown, unknown> = () => Effect.void

const start = async () => {
  const scope = Effect.runSync(Scope.make())
  const context = await Effect.runPromise(Layer.buildWithScope(layer, scope))
  const { drain } = await Effect.runPromise(Effect.provideContext(Worker, context))
  const control = await Effect.runPromise(Effect.provideContext(Control, context))
  submit = (n) => control.submit(requestOf(n))
  return async () => {
    await Effect.runPromiseWith(context)(drain)
    await Effect.runPromise(Scope.close(scope, Exit.void))
  }
}

const addMany = (all: ReadonlyArray<number>) =>
  Effect.runPromise(
    Effect.gen(function*() {
      const journal = yield* Journal
      yield* Effect.forEach(all, (n) => journal.submit(requestOf(n)), { concurrency: "unbounded", discard: true })
    }).pipe(Effect.provide(JournalSqlite.layer({ filename: `${state}/journal.sqlite` })))
  )

await measure({ add: (n: number) => Effect.runPromise(submit(n)), addMany, start })
