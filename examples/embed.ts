/**
 * Stoker inside a program: a worker as a layer, with a function, a door and an emitter of the program's own.
 *
 *   node examples/embed.ts /tmp/jobs       (as root, after `npm run setup`; STOKER_DRIVER=process needs less)
 *   echo '{"function": "primes", "args": {"upTo": 30}}' >/tmp/first.json && mv /tmp/first.json /tmp/jobs/
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Console, Effect, Layer, Stream } from "effect"
import { FetchHttpClient } from "effect/http"
import { Control, Ids, layerWorker, Outcome, Worker, WorkerConfig } from "stoker"
import { folderIntake } from "./folder-intake.ts"
import { primes } from "./function.ts"
import { webhookEmitter } from "./webhook-emitter.ts"

const driver = process.env["STOKER_DRIVER"] ?? "oci"

const worker = layerWorker({
  stateDirectory: process.env["STOKER_STATE"] ?? "/tmp/stoker-example",
  config: {
    ...WorkerConfig.standardConfig,
    classes: [WorkerConfig.standardClass(driver, driver)],
    defaultClass: Ids.ClassName.make(driver)
  },
  // This and nothing else: no job brings its own code.
  functions: [primes],
  embedded: false,
  doors: Effect.all({
    intakes: Effect.all([folderIntake(process.argv[2] ?? "/tmp/jobs")]),
    emitters: Effect.all([webhookEmitter])
  })
})

const program = Effect.gen(function*() {
  const { events } = yield* Control
  yield* Console.log("ready")
  yield* Stream.runForEach(events, (event) =>
    Console.log(
      event.key.id,
      event._tag === "Ended" ? Outcome.describe(event.outcome) : event._tag
    )).pipe(Effect.raceFirst((yield* Worker).failure))
})

// An interrupt closes the worker: what runs is given back, and found again at the next start.
program.pipe(
  Effect.provide(worker.pipe(Layer.provide([NodeServices.layer, FetchHttpClient.layer]))),
  NodeRuntime.runMain
)
