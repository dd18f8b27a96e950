/** What every `Control` does alike: a worker's, and the one that doors are tested with. */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import * as ControlLive from "../../src/actors/ControlLive.ts"
import * as Desk from "../../src/actors/Desk.ts"
import * as DiskWatch from "../../src/actors/DiskWatch.ts"
import * as Dispatcher from "../../src/actors/Dispatcher.ts"
import * as Outbox from "../../src/actors/Outbox.ts"
import { Artefacts } from "../../src/layers/artefacts/Artefacts.ts"
import * as ArtefactsMemory from "../../src/layers/artefacts/ArtefactsMemory.ts"
import * as Settings from "../../src/layers/config/Settings.ts"
import { Control } from "../../src/layers/control/Control.ts"
import * as ControlTest from "../../src/layers/control/ControlTest.ts"
import { Emitters } from "../../src/layers/emitter/Emitter.ts"
import * as EmitterTest from "../../src/layers/emitter/EmitterTest.ts"
import * as ExecutorTest from "../../src/layers/executor/ExecutorTest.ts"
import * as Functions from "../../src/layers/functions/Functions.ts"
import * as DiskSpaceTest from "../../src/layers/host/DiskSpaceTest.ts"
import * as HostTest from "../../src/layers/host/HostTest.ts"
import * as Embedded from "../../src/layers/intake/Embedded.ts"
import { Journal } from "../../src/layers/journal/Journal.ts"
import * as JournalMemory from "../../src/layers/journal/JournalMemory.ts"
import * as LedgerMemory from "../../src/layers/ledger/LedgerMemory.ts"
import { Log } from "../../src/layers/log/Log.ts"
import * as LogMemory from "../../src/layers/log/LogMemory.ts"
import { keyOf } from "../../src/schemas/Job.ts"
import { standardConfig } from "../../src/schemas/WorkerConfig.ts"
import * as Sample from "../journal/samples.ts"
import { say } from "../support/Say.ts"

const kept = Layer.merge(LogMemory.layerMemory, ArtefactsMemory.layerMemory)

const live = ControlLive.layer.pipe(
  Layer.provideMerge(Layer.mergeAll(Dispatcher.layer, DiskWatch.layer)),
  Layer.provideMerge(Layer.mergeAll(Outbox.layer, Desk.layer)),
  Layer.provideMerge(Layer.mergeAll(
    Layer.succeed(Emitters, [EmitterTest.make({ tells: () => false, onSent: () => undefined })]),
    Embedded.layer,
    Functions.layer([say]),
    ExecutorTest.layerTest(ExecutorTest.printing("hello\n"))
  )),
  Layer.provideMerge(Layer.mergeAll(
    JournalMemory.layerMemory,
    kept,
    DiskSpaceTest.layerTest(),
    Layer.provideMerge(LedgerMemory.layerMemory, HostTest.layerTest({ instance: "me" })),
    Settings.layer(standardConfig)
  ))
)

const requestOf = (id: string, owner: string, name = "say") => {
  const request = Sample.request(id)
  return { ...request, job: Sample.jobOf({ ...request.job, owner, function: name, args: { word: id } }) }
}

/** A log and a file, as a job leaves them. */
const leave = Effect.fnUntraced(function*(key: ReturnType<typeof keyOf>) {
  const writer = yield* (yield* Log).open(key, { attempt: 1, keepBytes: 1024 })
  yield* writer.append("stdout", new TextEncoder().encode("hello\n"))
  yield* writer.end
  const files = yield* (yield* Artefacts).open(key)
  const artefact = yield* files.add("out.txt", new TextEncoder().encode("bytes"))
  yield* files.keep
  return artefact
}, Effect.scoped)

const enough = { reason: "enough", graceMs: 0 }
const reading = { stream: "all", offset: 0, maxBytes: 100, waitMs: 0 } as const

const suite = <E>(name: string, layer: Layer.Layer<Control | Artefacts | Log, E>) =>
  describe(`Control: ${name}`, () => {
    const promise = (what: string, body: Effect.Effect<void, unknown, Control | Artefacts | Log>) =>
      it.effect(what, () => body.pipe(Effect.provide(Layer.fresh(layer))))

    promise(
      "jobs are listed by owner, function and state, in pages that nothing shifts",
      Effect.gen(function*() {
        const control = yield* Control
        for (const id of ["a", "b", "c"]) {
          yield* control.submit(requestOf(id, "ann"))
          yield* control.submit(requestOf(id, "bob", "other"))
        }
        yield* control.stop(keyOf(requestOf("b", "ann").job), enough)
        const idsOf = (filter: Parameters<Control["Service"]["list"]>[0]) =>
          Effect.map(control.list(filter), (jobs) => jobs.map(({ request: { job } }) => `${job.owner}/${job.id}`))
        assert.deepStrictEqual(yield* idsOf({ owner: "ann", limit: 10 }), ["ann/c", "ann/b", "ann/a"])
        assert.deepStrictEqual(yield* idsOf({ function: "other", limit: 2 }), ["bob/c", "bob/b"])
        assert.deepStrictEqual(yield* idsOf({ owner: "ann", state: "ended", limit: 10 }), ["ann/b"])
        assert.deepStrictEqual(yield* idsOf({ id: "b", limit: 10 }), ["bob/b", "ann/b"])
        const last = (yield* control.list({ limit: 3 })).at(-1)
        if (last === undefined) return assert.fail("no jobs")
        yield* control.submit(requestOf("d", "ann"))
        yield* control.remove(keyOf(requestOf("b", "ann").job))
        assert.deepStrictEqual(yield* idsOf({ before: last.cursor, limit: 10 }), ["ann/b", "bob/a", "ann/a"].slice(1))
      })
    )

    promise(
      "an ended job is removed with its output and files, and its id is free; one that has not ended stays",
      Effect.gen(function*() {
        const control = yield* Control
        const artefacts = yield* Artefacts
        const request = requestOf("a", "ann")
        const key = keyOf(request.job)
        assert.strictEqual((yield* Effect.flip(control.remove(key)))._tag, "JobNotFound")
        yield* control.submit(request)
        assert.strictEqual((yield* Effect.flip(control.remove(key)))._tag, "JobNotEnded")
        assert.strictEqual((yield* control.status(key)).state, "queued")
        yield* control.stop(key, enough)
        const artefact = yield* leave(key)
        assert.strictEqual((yield* control.read(key, reading)).entries.length, 1)
        yield* control.remove(key)
        assert.strictEqual((yield* Effect.flip(control.status(key)))._tag, "JobNotFound")
        assert.strictEqual((yield* Effect.flip(control.read(key, reading)))._tag, "LogNotFound")
        const gone = yield* Effect.flip(artefacts.read(key, artefact, { offset: 0, maxBytes: 10 }))
        assert.strictEqual(gone._tag, "ArtefactNotFound")
        assert.strictEqual((yield* Effect.flip(control.remove(key)))._tag, "JobNotFound")
        // Another request of that id is a new job.
        const other = { ...request, hash: "other" }
        assert.strictEqual((yield* control.submit(other)).state, "queued")
      })
    )
  })

suite("live", live)
suite("test", Layer.provideMerge(ControlTest.layerTest, kept))

describe("removing a job", () => {
  it.effect("leaves its row while its output cannot be removed, so that it can be asked again", () =>
    Effect.gen(function*() {
      const context = yield* Layer.build(Layer.fresh(live))
      const control = Context.get(context, Control)
      const log = Context.get(context, Log)
      const journal = Context.get(context, Journal)
      const request = requestOf("a", "ann")
      const key = keyOf(request.job)
      yield* control.submit(request)
      yield* control.stop(key, enough)
      yield* Effect.scoped(Effect.gen(function*() {
        yield* log.open(key, { attempt: 1, keepBytes: 1024 })
        assert.strictEqual((yield* Effect.flip(control.remove(key)))._tag, "LogError")
        assert.isDefined(yield* journal.get(key))
      }))
      yield* control.remove(key)
      assert.isUndefined(yield* journal.get(key))
    }))
})
