import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { noCounts } from "../../src/actors/PoolStats.ts"
import * as Readiness from "../../src/actors/Readiness.ts"
import { changedFields, isOneOf, textsOf } from "../../src/actors/Reconfigure.ts"
import { AmqpError, type AmqpStatus } from "../../src/layers/amqp/Amqp.ts"
import { HostError } from "../../src/layers/host/Host.ts"
import { Journal, JournalError } from "../../src/layers/journal/Journal.ts"
import * as JournalMemory from "../../src/layers/journal/JournalMemory.ts"
import { workerConfigOf } from "../../src/schemas/DaemonWorker.ts"
import { ClassName } from "../../src/schemas/Ids.ts"

const parts = (reasons: ReadonlyArray<{ readonly part: string }>) => reasons.map(({ part }) => part)

const up: AmqpStatus = {
  connected: true,
  publishing: true,
  consuming: true,
  queues: [],
  blocked: undefined,
  lastError: undefined
}

describe("readiness", () => {
  it.effect("does not hang with a journal that does not answer", () =>
    Effect.gen(function*() {
      const journal = yield* Journal
      assert.deepStrictEqual(yield* Readiness.journalReasons(journal), [])
      const asked = yield* Effect.forkChild(Readiness.journalReasons({ ...journal, holders: Effect.never }))
      yield* TestClock.adjust("2 seconds")
      const [reason] = yield* Fiber.join(asked)
      assert.match(reason?.reason ?? "", /no answer within 2 seconds/)
      const error = new JournalError({ operation: "read", reason: "the disk is full", remedy: "Free some space." })
      assert.deepStrictEqual(yield* Readiness.journalReasons({ ...journal, holders: Effect.fail(error) }), [
        { part: "journal", reason: "the disk is full", remedy: "Free some space." }
      ])
    }).pipe(Effect.provide(JournalMemory.layerMemory)))

  it.effect("needs as much room on the disk as is held in reserve", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* Readiness.diskReasons({ free: Effect.succeed(100) }, 100), [])
      const [little] = yield* Readiness.diskReasons({ free: Effect.succeed(99) }, 100)
      assert.match(`${little?.reason} ${little?.remedy}`, /99 bytes.*reserve of 100.*diskReserve/)
      const error = new HostError({ operation: "ask", reason: "EIO", remedy: "See the kernel's log" })
      assert.deepStrictEqual(parts(yield* Readiness.diskReasons({ free: Effect.fail(error) }, 100)), ["disk"])
    }))

  it("needs the broker only where one is configured, connected and taking", () => {
    assert.deepStrictEqual(Readiness.brokerReasons(undefined), [])
    assert.deepStrictEqual(Readiness.brokerReasons(up), [])
    assert.match(Readiness.brokerReasons({ ...up, connected: false })[0]?.reason ?? "", /not connected/)
    const lastError = new AmqpError({
      operation: "connect",
      reason: "Connect",
      broker: "h:5672",
      detail: "ECONNREFUSED",
      remedy: "Start it."
    })
    assert.deepStrictEqual(Readiness.brokerReasons({ ...up, connected: false, lastError }), [
      { part: "broker", reason: "ECONNREFUSED", remedy: "Start it." }
    ])
    assert.match(Readiness.brokerReasons({ ...up, blocked: "memory alarm" })[0]?.reason ?? "", /memory alarm/)
  })

  it("is satisfied with one class that works", () => {
    const works = { ...noCounts(), class: ClassName.make("a"), pooled: true, idle: 0, waiting: 0, target: 0 }
    const fails = {
      ...works,
      class: ClassName.make("b"),
      failing: { forMs: 1, reason: "no crun", remedy: "Install it." }
    }
    const of = (classes: ReadonlyArray<typeof works>) =>
      Readiness.poolReasons({ classes, limits: {}, held: { memoryBytes: 0, cpus: 0, sandboxes: 0 } })
    assert.deepStrictEqual(of([works, fails]), [])
    assert.deepStrictEqual(of([fails]), [{ part: "class b", reason: "no crun", remedy: "Install it." }])
  })

  it("tells doors that are shut and parts that were given up", () => {
    const state = [
      { name: "keeper", state: "restarting" },
      { name: "intake a", state: "running" },
      { name: "intake b", state: "restarting" },
      { name: "intake c", state: "givenUp" }
    ] as const
    assert.deepStrictEqual(parts(Readiness.closedDoors(state)), ["intake b", "intake c"])
    assert.deepStrictEqual(parts(Readiness.partsGivenUp(state)), ["intake c"])
  })
})

describe("changes of a configuration", () => {
  const texts = (config: Parameters<typeof workerConfigOf>[0], others: Record<string, string> = {}) =>
    textsOf({ config: workerConfigOf(config), others })

  it("are the fields that differ, as the file calls them, also those that come and go", () => {
    assert.deepStrictEqual(changedFields(texts({}), texts({})), [])
    assert.deepStrictEqual(
      changedFields(
        texts({ drain: 1, ownerSlots: 1 }, { amqp: "a" }),
        texts({ drain: 2, weights: { low: 2 } }, { amqp: "b" })
      ),
      ["weights.low", "ownerSlots", "drain", "amqp"]
    )
  })

  it("belong to a field that is applied when they are it or below it", () => {
    assert.isTrue(isOneOf(["weights"], "weights.low"))
    assert.isTrue(isOneOf(["drain"], "drain"))
    assert.isFalse(isOneOf(["slots"], "slotsMore"))
  })
})
