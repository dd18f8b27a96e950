/**
 * A job of the program's own: through the embedded queue of its worker, with its events as they come, its output and a file.
 *
 *   node examples/submit.ts        (as root, after `npm run setup`; STOKER_DRIVER=process needs less)
 */
import { Console, Effect, Fiber, Option, Stream } from "effect"
import { Control, Ids, type Job, layerWorker, Outcome, requestHash, WorkerConfig } from "stoker"

const job: Job.Job = {
  intake: Ids.IntakeName.make("embedded"),
  owner: Ids.Owner.make("local"),
  // Yours to choose: the same id with the same request is the same job, and is not run twice.
  id: Ids.JobId.make(`example-${process.pid}`),
  function: Ids.FunctionName.make("code"),
  args: {
    language: "python",
    source: "import os\nprint('hello from', os.uname().nodename)\nopen('answer.txt', 'w').write('42')\n",
    artefacts: ["answer.txt"]
  },
  limits: { wallMs: 5000 }
}

const program = Effect.gen(function*() {
  const control = yield* Control
  // Listening before it is submitted: nothing is missed.
  const listening = yield* control.events.pipe(
    Stream.filter((event) => event.key.id === job.id),
    Stream.tap((event) => Console.log("event", event._tag)),
    Stream.filter((event) => event._tag === "Ended"),
    Stream.runHead,
    Effect.forkScoped({ startImmediately: true })
  )
  yield* control.submit({ job, hash: requestHash(job), reply: null })
  const ended = yield* Fiber.join(listening)

  const { entries } = yield* control.read(job, { stream: "stdout", offset: 0, maxBytes: 65_536, waitMs: 0 })
  for (const entry of entries) {
    if (entry._tag === "Bytes") yield* Console.log(new TextDecoder().decode(entry.bytes).trimEnd())
  }
  const answer = yield* control.artefact(job, "answer.txt", { offset: 0, maxBytes: 65_536 })
  yield* Console.log("it left", answer.artefact.path, new TextDecoder().decode(answer.bytes))
  if (Option.isSome(ended)) yield* Console.log("it", Outcome.describe(ended.value.outcome))
})

const driver = process.env["STOKER_DRIVER"] ?? "oci"

await program.pipe(
  Effect.scoped,
  Effect.provide(layerWorker({
    stateDirectory: process.env["STOKER_STATE"] ?? "/tmp/stoker-example",
    config: {
      ...WorkerConfig.standardConfig,
      classes: [WorkerConfig.standardClass(driver, driver)],
      defaultClass: Ids.ClassName.make(driver)
    }
  })),
  Effect.runPromise
)
