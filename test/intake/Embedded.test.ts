import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Queue, Stream } from "effect"
import { TestClock } from "effect/testing"
import { join } from "node:path"
import * as Settings from "../../src/layers/config/Settings.ts"
import * as Embedded from "../../src/layers/intake/Embedded.ts"
import type { Delivery } from "../../src/layers/intake/Intake.ts"
import { requestHash } from "../../src/layers/intake/RequestHash.ts"
import { Journal } from "../../src/layers/journal/Journal.ts"
import * as JournalSqlite from "../../src/layers/journal/JournalSqlite.ts"
import { Owner } from "../../src/schemas/Ids.ts"
import { standardTerms, type Terms } from "../../src/schemas/Terms.ts"
import { standardConfig } from "../../src/schemas/WorkerConfig.ts"
import { makeJob } from "../actors/World.ts"
import * as Places from "../journal/places.ts"
import { type Door, suite } from "./suite.ts"
import * as TestTime from "./testTime.ts"

const embedded = (journals: typeof Places.memory) =>
  Effect.gen(function*() {
    const context = yield* Layer.build(yield* journals())
    const journal = Context.get(context, Journal)
    const settings = Settings.layer({ ...standardConfig, weights: { high: 16, normal: 4, low: 1 } })
    const door: Door = {
      send: Effect.fnUntraced(function*(id, { delayMs, priority = "normal", retry, ttlMs, word = "hello" } = {}) {
        const nowMs = yield* Effect.clockWith((clock) => clock.currentTimeMillis)
        const job = { ...makeJob(id), intake: Embedded.NAME, args: { word } }
        yield* journal.submit({ job, hash: requestHash(job), reply: null }, {
          terms: {
            priority,
            ...(delayMs === undefined ? {} : { notBeforeMs: nowMs + delayMs }),
            ...(ttlMs === undefined ? {} : { expiresAtMs: nowMs + ttlMs }),
            retry: retry ?? standardTerms.retry
          }
        })
      }),
      open: Effect.gen(function*() {
        const layer = Layer.fresh(Embedded.layer).pipe(Layer.provide([Layer.succeedContext(context), settings]))
        const { intake } = Context.get(yield* Layer.build(layer), Embedded.Embedded)
        const arrived = yield* Queue.unbounded<Delivery>()
        yield* Effect.forkScoped(Stream.runForEach(intake.deliveries, (delivery) => Queue.offer(arrived, delivery)))
        return arrived
      }),
      journal,
      letters: Effect.map(journal.dead(100), ({ letters }) =>
        letters.map(({ reason, request: { job } }) => ({ id: job.id, reason }))),
      isEmpty: Effect.map(journal.list({ limit: 100 }), (records) =>
        records.every(({ state }) => state === "ended")),
      ...TestTime
    }
    return door
  })

suite("the embedded queue in memory", "effect", embedded(Places.memory))
suite("the embedded queue in SQLite", "effect", embedded(Places.sqlite))

describe("the embedded queue's door", () => {
  it.effect("looks at once when another process has queued a job", () =>
    Effect.gen(function*() {
      const directory = yield* Places.directory
      const place = () =>
        Effect.succeed(Layer.fresh(JournalSqlite.layer({ filename: join(directory, "journal.sqlite") })))
      const [worker, sender] = [yield* embedded(place), yield* embedded(place)]
      const arrived = yield* worker.open
      yield* sender.send("a")
      assert.strictEqual((yield* Queue.take(arrived)).job.id, "a")
      // By now it has looked in vain and waits, and none of its own time passes by which it would look anyhow.
      yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 300)))
      yield* sender.send("b")
      assert.strictEqual((yield* Queue.take(arrived)).job.id, "b")
    }))

  it.effect("lets owners take turns, however many jobs one of them has queued", () =>
    Effect.gen(function*() {
      const door = yield* embedded(Places.sqlite)
      const send = (owner: string, id: string) => {
        const job = { ...makeJob(id), owner: Owner.make(owner), intake: Embedded.NAME }
        return door.journal.submit({ job, hash: requestHash(job), reply: null })
      }
      yield* Effect.forEach(Array.from({ length: 200 }, (_, n) => n), (n) => send("flood", `f${n}`))
      yield* Effect.forEach(["ann", "bob"], (owner) => Effect.forEach([0, 1], (n) => send(owner, `${owner}${n}`)))
      const arrived = yield* door.open
      const first = yield* Effect.forEach(Array.from({ length: 6 }), () => Queue.take(arrived))
      assert.deepStrictEqual(first.map(({ job }) => String(job.id)), ["f0", "ann0", "bob0", "f1", "ann1", "bob1"])
      const rest = yield* Effect.forEach(Array.from({ length: 198 }), () => Queue.take(arrived))
      assert.deepStrictEqual(rest.map(({ job }) => String(job.id)), Array.from({ length: 198 }, (_, n) => `f${n + 2}`))
    }))

  it.effect("lets owners take turns where jobs take long, and pays no attention to those whose time has not come", () =>
    Effect.gen(function*() {
      const context = yield* Layer.build(yield* Places.sqlite())
      const journal = Context.get(context, Journal)
      const send = (owner: string, id: string, some: Partial<Terms> = {}) => {
        const job = { ...makeJob(id), owner: Owner.make(owner), intake: Embedded.NAME }
        return journal.submit({ job, hash: requestHash(job), reply: null }, { terms: { ...standardTerms, ...some } })
      }
      yield* Effect.forEach(Array.from({ length: 60 }, (_, n) => n), (n) => send("flood", `f${n}`))
      yield* Effect.forEach(
        Array.from({ length: 20 }, (_, n) => n),
        (n) => send(`later${n}`, `l${n}`, { notBeforeMs: 1e9 })
      )
      yield* Effect.forEach(["ann", "zoe"], (owner) => Effect.forEach([0, 1, 2], (n) => send(owner, `${owner}${n}`)))
      const layer = Embedded.layer.pipe(
        Layer.provide([Layer.succeedContext(context), Settings.layer(standardConfig)])
      )
      const { intake } = Context.get(yield* Layer.build(layer), Embedded.Embedded)
      const pull = yield* Stream.toPull(intake.deliveries)
      const order: Array<string> = []
      for (let n = 0; n < 12; n++) {
        for (const { job } of yield* pull) order.push(String(job.id))
        // Longer than what was read is good for.
        yield* TestClock.adjust("250 millis")
      }
      assert.deepStrictEqual(order.filter((id) => !id.startsWith("f")).toSorted(), [
        "ann0",
        "ann1",
        "ann2",
        "zoe0",
        "zoe1",
        "zoe2"
      ])
      assert.deepStrictEqual(order.filter((id) => id.startsWith("f")), ["f0", "f1", "f2", "f3", "f4", "f5"])
    }))

  it.effect("hands a delayed job over when it is due, not when it looks next", () =>
    Effect.gen(function*() {
      const door = yield* embedded(Places.memory)
      const arrived = yield* door.open
      yield* door.send("a", { delayMs: 1110 })
      yield* TestClock.adjust(1109)
      assert.strictEqual(Queue.sizeUnsafe(arrived), 0)
      yield* TestClock.adjust(1)
      assert.strictEqual(Queue.sizeUnsafe(arrived), 1)
    }).pipe(Effect.scoped))

  it.effect("reads many waiting rows a few at a time, and misses none", () =>
    Effect.gen(function*() {
      const door = yield* embedded(Places.memory)
      const ids = Array.from({ length: 200 }, (_, n) => `job-${n}`)
      for (const id of ids) yield* door.send(id)
      const arrived = yield* door.open
      yield* door.pass(200)
      assert.deepStrictEqual((yield* Queue.clear(arrived)).map(({ job }) => String(job.id)), ids)
    }).pipe(Effect.scoped))
})
