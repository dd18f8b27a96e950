/** A worker's Control without a worker, for tests of doors: records live in memory, a stop ends a job at once. */
import { Clock, Effect, Layer, PubSub, Stream } from "effect"
import { type JobKey, keyText } from "../../schemas/Ids.ts"
import { keyOf } from "../../schemas/Job.ts"
import type { JobEvent } from "../../schemas/JobEvent.ts"
import { Outcome } from "../../schemas/Outcome.ts"
import { Artefacts, readNamed } from "../artefacts/Artefacts.ts"
import { IdConflict, JobCursor, type JobRecord } from "../journal/Journal.ts"
import { Log } from "../log/Log.ts"
import { Control, JobNotEnded, JobNotFound } from "./Control.ts"

const make = Effect.gen(function*() {
  const log = yield* Log
  const artefacts = yield* Artefacts
  const events = yield* PubSub.sliding<JobEvent>(1024)
  const records = new Map<string, JobRecord>()
  const places = new Map<string, number>()
  let lastPlace = 0
  const find = (key: JobKey) =>
    Effect.suspend(() => {
      const record = records.get(keyText(key))
      return record === undefined ? Effect.fail(new JobNotFound({ key })) : Effect.succeed(record)
    })
  return Control.of({
    submit: Effect.fnUntraced(function*(request) {
      const key = keyOf(request.job)
      const known = records.get(keyText(key))
      if (known !== undefined) return known.request.hash === request.hash ? known : yield* new IdConflict({ key })
      const record: JobRecord = { request, state: "queued", attempt: 0, receivedAtMs: yield* Clock.currentTimeMillis }
      records.set(keyText(key), record)
      lastPlace += 1
      places.set(keyText(key), lastPlace)
      return record
    }),
    stop: Effect.fnUntraced(function*(key, { reason }) {
      const record = yield* find(key)
      if (record.settlement !== undefined) return record
      const endedAtMs = yield* Clock.currentTimeMillis
      const outcome = Outcome.cases.Stopped.make({ reason })
      const settlement = { outcome, usage: { phases: [] }, output: [], attempt: record.attempt, endedAtMs }
      const ended: JobRecord = { ...record, state: "ended", settlement }
      records.set(keyText(key), ended)
      PubSub.publishUnsafe(events, {
        _tag: "Ended",
        key,
        attempt: record.attempt,
        seq: 0,
        atMs: endedAtMs,
        outcome,
        usage: settlement.usage,
        output: []
      })
      return ended
    }),
    status: find,
    list: ({ before, function: name, id, limit, owner, state }) =>
      Effect.sync(() =>
        [...records].toReversed().flatMap(([key, record]) => {
          const { request: { job } } = record
          const place = places.get(key) ?? 0
          const isWanted = (id === undefined || job.id === id) && (state === undefined || record.state === state) &&
            (owner === undefined || job.owner === owner) && (name === undefined || job.function === name) &&
            (before === undefined || place < Number.parseInt(before, 36))
          return isWanted ? [{ ...record, cursor: JobCursor.make(place.toString(36)) }] : []
        }).slice(0, limit)
      ),
    remove: Effect.fnUntraced(function*(key) {
      const record = yield* find(key)
      if (record.state !== "ended") return yield* new JobNotEnded({ key })
      yield* artefacts.remove(key)
      yield* log.remove(key)
      records.delete(keyText(key))
      places.delete(keyText(key))
    }),
    read: log.read,
    artefact: (key, path, range) => Effect.flatMap(find(key), (record) => readNamed(artefacts, record, path, range)),
    events: Stream.fromPubSub(events)
  })
})

/** Answers from memory; what is read comes from the given Log and Artefacts. */
export const layerTest: Layer.Layer<Control, never, Artefacts | Log> = Layer.effect(Control, make)
