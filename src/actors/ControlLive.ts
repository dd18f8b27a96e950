/** The worker's answer to its doors. */
import { Effect, Layer, Schedule, Stream } from "effect"
import { Artefacts, readNamed } from "../layers/artefacts/Artefacts.ts"
import { Settings } from "../layers/config/Settings.ts"
import { Control, JobNotEnded, JobNotFound } from "../layers/control/Control.ts"
import type { Emitters } from "../layers/emitter/Emitter.ts"
import type { Functions } from "../layers/functions/Functions.ts"
import type { Host } from "../layers/host/Host.ts"
import { Embedded } from "../layers/intake/Embedded.ts"
import { Journal } from "../layers/journal/Journal.ts"
import { Log } from "../layers/log/Log.ts"
import type { JobKey } from "../schemas/Ids.ts"
import { standardTerms } from "../schemas/Terms.ts"
import { Desk } from "./Desk.ts"
import { DiskWatch } from "./DiskWatch.ts"
import { Dispatcher } from "./Dispatcher.ts"
import { endQueued } from "./EndQueued.ts"
import type { Outbox } from "./Outbox.ts"

const make = Effect.gen(function*() {
  // What ends a job that no actor has.
  const services = yield* Effect.context<
    Artefacts | Desk | Emitters | Functions | Host | Journal | Log | Outbox | Settings
  >()
  const journal = yield* Journal
  const log = yield* Log
  const artefacts = yield* Artefacts
  const desk = yield* Desk
  const dispatcher = yield* Dispatcher
  const embedded = yield* Embedded
  const disk = yield* DiskWatch
  const { queueMaximum } = yield* Settings

  const status = Effect.fn("Control.status")(function*(key: JobKey) {
    const record = yield* journal.get(key)
    return record === undefined ? yield* new JobNotFound({ key }) : record
  })
  return Control.of({
    submit: Effect.fn("Control.submit")(function*(request, terms = standardTerms) {
      yield* disk.check
      const record = yield* journal.submit(request, { terms, maximum: queueMaximum })
      yield* embedded.wake
      return record
    }),
    stop: Effect.fn("Control.stop")(function*(key, request) {
      // In hand it ends here; else the journal knows whether it has ended, is another worker's, or was never there.
      const ended = Effect.gen(function*() {
        if (yield* dispatcher.stop(key, request)) return true
        const record = yield* status(key)
        if (record.state !== "queued") return true
        return yield* Effect.provideContext(endQueued(record, request.reason), services)
      })
      yield* ended.pipe(Effect.repeat({ until: (done) => done, schedule: Schedule.spaced("100 millis") }))
      return yield* status(key)
    }),
    status,
    list: journal.list,
    read: log.read,
    artefact: Effect.fn("Control.artefact")(function*(key, path, range) {
      return yield* readNamed(artefacts, yield* status(key), path, range)
    }),
    // The row goes last: as long as it is there whoever asked can ask again, and a repeat of the job is answered, not run,
    // so no new job's output is taken for the old one's. A worker that dies in between leaves a row without output, which
    // goes when its time is over. (With the row first, a new job of the key could begin to write what is removed next.)
    remove: Effect.fn("Control.remove")(function*(key) {
      if ((yield* status(key)).state !== "ended") return yield* new JobNotEnded({ key })
      yield* log.remove(key)
      yield* artefacts.remove(key)
      const answer = yield* journal.remove(key)
      if (answer === "Busy") return yield* new JobNotEnded({ key })
    }),
    events: Stream.fromPubSub(desk.watchers)
  })
})

export const layer = Layer.effect(Control, make)
