import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import * as Janitor from "../../src/actors/Janitor.ts"
import { Artefacts } from "../../src/layers/artefacts/Artefacts.ts"
import * as ArtefactsMemory from "../../src/layers/artefacts/ArtefactsMemory.ts"
import * as CgroupsTest from "../../src/layers/cgroup/CgroupsTest.ts"
import * as Settings from "../../src/layers/config/Settings.ts"
import * as HostTest from "../../src/layers/host/HostTest.ts"
import { Journal } from "../../src/layers/journal/Journal.ts"
import * as JournalMemory from "../../src/layers/journal/JournalMemory.ts"
import { Ledger, type LedgerRow } from "../../src/layers/ledger/Ledger.ts"
import { Log } from "../../src/layers/log/Log.ts"
import * as LogMemory from "../../src/layers/log/LogMemory.ts"
import { type Driver, Drivers } from "../../src/layers/sandbox/Sandbox.ts"
import { InstanceId, SandboxId } from "../../src/schemas/Ids.ts"
import { keyOf } from "../../src/schemas/Job.ts"
import type { Artefact } from "../../src/schemas/JobEvent.ts"
import { standardConfig } from "../../src/schemas/WorkerConfig.ts"
import { exited, makeJob } from "./World.ts"

const row = (instance: string, id: string): LedgerRow => ({
  id: SandboxId.make(id),
  instance: InstanceId.make(instance),
  driver: "oci",
  madeAtMs: 0
})

/** A host with a dead worker and a live one; `stubborn` sandboxes cannot be proven gone. */
const world = (rows: ReadonlyArray<LedgerRow>, stubborn: ReadonlySet<string> = new Set()) => {
  const left = new Map(rows.map((one) => [one.id, one]))
  const reaped: Array<string> = []
  const driver: Driver = {
    name: "oci",
    capabilities: new Set(),
    provision: () => Effect.die("not made here"),
    check: Effect.succeed([]),
    reap: ({ id }) =>
      Effect.sync(() => {
        reaped.push(id)
        return !stubborn.has(id)
      })
  }
  const ledger = Ledger.of({
    hold: () => Effect.die("nothing is held here"),
    rows: (instance) =>
      Effect.sync(() => [...left.values()].filter((one) => instance === undefined || one.instance === instance)),
    strike: ({ id }) => Effect.sync(() => void left.delete(id))
  })
  const others = new Map([[InstanceId.make("dead"), false], [InstanceId.make("alive"), true]])
  const layer = Layer.mergeAll(
    Layer.succeed(Drivers, [driver]),
    Layer.succeed(Ledger, ledger),
    HostTest.layerTest({ instance: "me", others }),
    JournalMemory.layerMemory,
    CgroupsTest.layerTest
  )
  return { layer, left, reaped, others }
}

const claim = Effect.fnUntraced(function*(instance: string, id: string) {
  const request = { job: makeJob(id), hash: "h", reply: null }
  const options = { instance: InstanceId.make(instance), leaseMs: 60_000, maxAttempts: 2 }
  return yield* (yield* Journal).claim(request, options)
})

describe("the janitor", () => {
  it.effect("removes what a dead worker left, frees its jobs, and forgets it", () => {
    const { layer, left, others, reaped } = world([row("dead", "a"), row("dead", "b"), row("alive", "c")])
    return Effect.gen(function*() {
      yield* claim("dead", "job")
      const swept = yield* Janitor.sweep
      assert.deepStrictEqual(swept, { instances: 1, sandboxes: 2, jobs: 1, left: 0 })
      assert.deepStrictEqual(reaped, ["a", "b"])
      assert.deepStrictEqual([...left.keys()], ["c"])
      assert.isFalse(others.has(InstanceId.make("dead")))
      const again = yield* claim("me", "job")
      assert.strictEqual(again._tag, "Granted")
    }).pipe(Effect.provide(layer))
  })

  it.effect("does not free the jobs of a worker whose sandbox may still run", () => {
    const { layer, left, others } = world([row("dead", "a"), row("dead", "b")], new Set(["b"]))
    return Effect.gen(function*() {
      yield* claim("dead", "job")
      const swept = yield* Janitor.sweep
      assert.deepStrictEqual(swept, { instances: 0, sandboxes: 1, jobs: 0, left: 1 })
      assert.deepStrictEqual([...left.keys()], ["b"])
      assert.isTrue(others.has(InstanceId.make("dead")))
      assert.strictEqual((yield* claim("me", "job"))._tag, "Held")
    }).pipe(Effect.provide(layer))
  })

  it.effect("touches nothing of a live worker, nor of itself", () => {
    const { layer, left, others, reaped } = world([row("alive", "a"), row("me", "b")])
    others.delete(InstanceId.make("dead"))
    return Effect.gen(function*() {
      yield* claim("alive", "job")
      const swept = yield* Janitor.sweep
      assert.deepStrictEqual(swept, { instances: 0, sandboxes: 0, jobs: 0, left: 0 })
      assert.deepStrictEqual(reaped, [])
      assert.strictEqual(left.size, 2)
      assert.strictEqual((yield* claim("me", "job"))._tag, "Held")
    }).pipe(Effect.provide(layer))
  })

  it.effect("removes ended jobs after their time and then their logs and artefacts, whichever went first", () => {
    const retention = { dedupeMs: 60_000, jobsMs: 3_600_000, deadLettersMs: 1 }
    const layer = Layer.mergeAll(
      JournalMemory.layer(JournalMemory.makeState(), { dedupeWindow: 60_000, retention: 3_600_000 }),
      LogMemory.layerMemory,
      ArtefactsMemory.layerMemory,
      Settings.layer({ ...standardConfig, retention })
    )
    return Effect.gen(function*() {
      const journal = yield* Journal
      const log = yield* Log
      const artefacts = yield* Artefacts
      const left = new Map<string, Artefact>()
      const write = (id: string) =>
        Effect.scoped(Effect.gen(function*() {
          yield* (yield* log.open(keyOf(makeJob(id)), { attempt: 1, keepBytes: 1 })).end
          const files = yield* artefacts.open(keyOf(makeJob(id)))
          left.set(id, yield* files.add("x", new TextEncoder().encode(id)))
          yield* files.keep
        }))
      for (const id of ["ends", "runs"]) yield* Effect.andThen(claim("me", id), write(id))
      // Its row went, and then its worker died: the log is still there.
      yield* write("left")
      const held = yield* claim("me", "ended")
      if (held._tag !== "Granted") return assert.fail(held._tag)
      const settlement = { outcome: exited(0), usage: { phases: [] }, output: [], attempt: 1, endedAtMs: 0 }
      yield* journal.settle(held.claim, settlement, [])
      yield* write("ended")
      const kept = Effect.filter(["ends", "runs", "left", "ended"], (id) =>
        Effect.isSuccess(
          log.read(keyOf(makeJob(id)), { stream: "all", offset: 0, maxBytes: 1, waitMs: 0 })
        ))
      const keptFiles = Effect.suspend(() =>
        Effect.filter(
          [...left],
          ([id, artefact]) => Effect.isSuccess(artefacts.read(keyOf(makeJob(id)), artefact, { offset: 0, maxBytes: 1 }))
        ).pipe(
          Effect.map((files) => files.map(([id]) => id))
        )
      )
      yield* TestClock.adjust("59 minutes")
      yield* Janitor.prune
      assert.deepStrictEqual(yield* kept, ["ends", "runs", "left", "ended"])
      assert.deepStrictEqual(yield* keptFiles, ["ends", "runs", "left", "ended"])
      yield* TestClock.adjust("2 minutes")
      yield* Janitor.prune
      assert.deepStrictEqual(yield* kept, ["ends", "runs"])
      assert.deepStrictEqual(yield* keptFiles, ["ends", "runs"])
      assert.isUndefined(yield* journal.get(keyOf(makeJob("ended"))))
    }).pipe(Effect.provide(layer))
  })
})
