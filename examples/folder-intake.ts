/**
 * A door of one's own: each `NAME.json` put into a folder is a job called NAME, for instance
 *
 *   {"function": "primes", "args": {"upTo": 30}, "webhook": "http://127.0.0.1:8080/done"}
 *
 * The file stays until its job has ended and that has been told; then it goes to `done`. If the program dies meanwhile,
 * the next one finds it. Files are to be moved into the folder whole, since one that cannot be read goes to `refused`.
 */
import { Effect, FileSystem, Path, Schedule, Schema, Stream } from "effect"
import { type Delivery, Ids, type Intake, type Job, requestHash } from "stoker"

const Asked = Schema.fromJsonString(Schema.Struct({
  function: Ids.FunctionName,
  args: Schema.Json,
  webhook: Schema.optionalKey(Schema.String)
}))

/** Needs a file system; fails if the folder cannot be made. */
export const folderIntake = Effect.fnUntraced(function*(folder: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  for (const part of ["done", "refused"]) yield* fs.makeDirectory(path.join(folder, part), { recursive: true })
  const name = Ids.IntakeName.make("folder")
  const handed = new Set<string>()

  const move = (file: string, to: string) =>
    fs.rename(path.join(folder, file), path.join(folder, to, file)).pipe(
      Effect.ensuring(Effect.sync(() => handed.delete(file))),
      Effect.ignore({ log: "Warn", message: `${file} stays in ${folder}` })
    )
  const refuse = (file: string, reason: string) =>
    Effect.andThen(Effect.logWarning(`${file} is refused: ${reason}`), move(file, "refused"))

  const read = (file: string) =>
    Effect.gen(function*() {
      handed.add(file)
      const asked = yield* Schema.decodeEffect(Asked)(yield* fs.readFileString(path.join(folder, file)))
      const id = yield* Schema.decodeEffect(Ids.JobId)(path.basename(file, ".json"))
      const job: Job.Job = {
        intake: name,
        owner: Ids.Owner.make("local"),
        id,
        function: asked.function,
        args: asked.args,
        limits: {}
      }
      const delivery: Delivery = {
        job,
        hash: requestHash(job),
        // For the emitter, which finds it with every event of this job.
        reply: asked.webhook === undefined ? null : { webhook: asked.webhook },
        redelivered: false,
        ack: move(file, "done"),
        reject: (reason) => refuse(file, reason),
        giveBack: Effect.sync(() => handed.delete(file))
      }
      return [delivery]
    }).pipe(Effect.catch((error) => Effect.as(refuse(file, error.message), [])))

  const look = fs.readDirectory(folder).pipe(
    Effect.map((files) => files.filter((file) => file.endsWith(".json") && !handed.has(file))),
    Effect.catch((error) => Effect.as(Effect.logWarning(`${folder} cannot be read: ${error.message}`), []))
  )
  const intake: Intake = {
    name,
    deliveries: Stream.fromSchedule(Schedule.spaced("200 millis")).pipe(
      Stream.mapEffect(() => look),
      Stream.flattenIterable,
      Stream.mapEffect(read),
      Stream.flattenIterable
    )
  }
  return intake
})
