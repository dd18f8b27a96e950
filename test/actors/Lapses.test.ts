import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import * as Desk from "../../src/actors/Desk.ts"
import * as Janitor from "../../src/actors/Janitor.ts"
import * as Lapses from "../../src/actors/Lapses.ts"
import * as CgroupsTest from "../../src/layers/cgroup/CgroupsTest.ts"
import * as Settings from "../../src/layers/config/Settings.ts"
import * as HostTest from "../../src/layers/host/HostTest.ts"
import { type Claim, Journal } from "../../src/layers/journal/Journal.ts"
import * as JournalMemory from "../../src/layers/journal/JournalMemory.ts"
import { Ledger, type LedgerRow } from "../../src/layers/ledger/Ledger.ts"
import * as LedgerMemory from "../../src/layers/ledger/LedgerMemory.ts"
import { Drivers } from "../../src/layers/sandbox/Sandbox.ts"
import { InstanceId, keyText, SandboxId } from "../../src/schemas/Ids.ts"
import { keyOf } from "../../src/schemas/Job.ts"
import { standardConfig } from "../../src/schemas/WorkerConfig.ts"
import { makeJob } from "./World.ts"

const leaseMs = 30_000

/** `neighbour` is a live worker of this host, `dead` one that left its directory; nobody else is known here. */
const world = (scope: Journal["Service"]["scope"], rows: ReadonlyArray<LedgerRow> = []) => {
  const others = new Map([[InstanceId.make("neighbour"), true], [InstanceId.make("dead"), false]])
  const journal = Layer.effect(Journal, Effect.map(Journal, (journal) => Journal.of({ ...journal, scope }))).pipe(
    Layer.provide(JournalMemory.layerMemory)
  )
  const ledger = Layer.effect(
    Ledger,
    Effect.map(
      Ledger,
      (own) =>
        Ledger.of({
          ...own,
          rows: (of) => Effect.succeed(rows.filter(({ instance }) => (of ?? instance) === instance))
        })
    )
  ).pipe(Layer.provide(LedgerMemory.layerMemory))
  return Layer.mergeAll(
    Layer.provideMerge(Desk.layer, Settings.layer({ ...standardConfig, leaseMs })),
    Layer.provideMerge(ledger, HostTest.layerTest({ instance: "me", others })),
    Layer.succeed(Drivers, []),
    CgroupsTest.layerTest,
    journal
  )
}

/** A job of the embedded queue that somebody has claimed. */
const claimed = Effect.fnUntraced(function*(instance: string, id = "job") {
  const request = { job: makeJob(id), hash: "h", reply: null }
  const journal = yield* Journal
  yield* journal.submit(request)
  const answer = yield* journal.claim(request, { instance: InstanceId.make(instance), leaseMs, maxAttempts: 2 })
  return answer._tag === "Granted" ? answer.claim : assert.fail(answer._tag)
})

const isFree = ({ key }: Claim) =>
  Effect.flatMap(Journal, (journal) => Effect.map(journal.get(key), (record) => record?.state === "queued"))

const key = keyText(keyOf(makeJob("job")))

/** Moves time in steps, as the worker's rounds do. */
const pass = (duration: Duration.Input) =>
  Effect.repeat(TestClock.adjust("1 second"), { times: Math.round(Duration.toSeconds(duration)) - 1 })

describe("a lapsed claim", () => {
  for (const scope of ["host", "shared"] as const) {
    it.effect(`of a live worker of this host is never taken, whatever a clock says (${scope})`, () =>
      Effect.gen(function*() {
        const claim = yield* claimed("neighbour")
        yield* Effect.forkChild(Lapses.rounds)
        yield* TestClock.adjust("3 hours")
        yield* pass("2 minutes")
        const { lapsed } = yield* Journal
        const [lapse] = yield* lapsed(10)
        assert.isDefined(lapse)
        if (lapse !== undefined) assert.isFalse(yield* Lapses.end(lapse))
        assert.isFalse(yield* isFree(claim))
      }).pipe(Effect.provide(world(scope))))
  }

  it.effect("of a dead worker is taken only when nothing of it can run any more", () => {
    const rows: Array<LedgerRow> = [
      { id: SandboxId.make("s0000000000000000001"), instance: InstanceId.make("dead"), driver: "oci", madeAtMs: 0 }
    ]
    return Effect.gen(function*() {
      const claim = yield* claimed("dead")
      yield* TestClock.adjust("31 seconds")
      const { lapsed } = yield* Journal
      const [lapse] = yield* lapsed(10)
      if (lapse === undefined) return assert.fail("it has not lapsed")
      assert.isFalse(yield* Lapses.end(lapse))
      assert.isFalse(yield* isFree(claim))
      rows.pop()
      assert.isTrue(yield* Lapses.end(lapse))
      assert.isTrue(yield* isFree(claim))
    }).pipe(Effect.provide(world("host", rows)))
  })

  it.effect("of another host's worker is taken when it was not renewed for a whole lease", () =>
    Effect.gen(function*() {
      const claim = yield* claimed("far")
      yield* Effect.forkChild(Lapses.rounds)
      // A clock that jumps says only that it has lapsed.
      yield* TestClock.adjust("31 seconds")
      yield* pass("25 seconds")
      assert.isFalse(yield* isFree(claim))
      yield* pass("20 seconds")
      assert.isTrue(yield* isFree(claim))
      assert.strictEqual((yield* Desk.Desk).sightings.size, 0)
    }).pipe(Effect.provide(world("shared"))))

  it.effect("of another host's worker that renews it, however late, stays its own", () =>
    Effect.gen(function*() {
      const claim = yield* claimed("far")
      const journal = yield* Journal
      yield* Effect.forkChild(Lapses.rounds)
      for (const _ of [1, 2, 3, 4, 5]) {
        // Each time it has lapsed and has been seen, though not for a whole lease.
        yield* pass("55 seconds")
        assert.deepStrictEqual(yield* journal.renew([claim], leaseMs), [])
      }
      assert.isFalse(yield* isFree(claim))
    }).pipe(Effect.provide(world("shared"))))

  it.effect("of our own that nobody here runs is free: it could not be given back", () =>
    Effect.gen(function*() {
      const claim = yield* claimed("me")
      const { claims } = yield* Desk.Desk
      claims.set(key, claim)
      yield* Effect.forkChild(Lapses.rounds)
      yield* pass("2 minutes")
      assert.isFalse(yield* isFree(claim))
      claims.delete(key)
      yield* pass("11 seconds")
      assert.isTrue(yield* isFree(claim))
    }).pipe(Effect.provide(world("shared"))))

  it.effect("of another host is no business of the janitor's, whose own dead are", () =>
    Effect.gen(function*() {
      const far = yield* claimed("far", "far")
      const near = yield* claimed("dead", "near")
      const swept = yield* Janitor.sweep
      assert.strictEqual(swept.jobs, 1)
      assert.isFalse(yield* isFree(far))
      assert.isTrue(yield* isFree(near))
    }).pipe(Effect.provide(world("shared"))))
})
