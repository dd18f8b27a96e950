/** Everybody stops everything at once, over the broker. */
import { assert, beforeAll, describe, it } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { controlQueue } from "../../src/layers/intake/StokerTopology.ts"
import { FunctionName, JobId } from "../../src/schemas/Ids.ts"
import { endless } from "../actors/World.ts"
import { acquireBroker, ask, queueIs, served, startClient, startWorker } from "../stokeramqp/Place.ts"
import { Broker } from "../support/Broker.ts"

beforeAll(async () => {
  await using broker = await Broker.acquire()
  assert.include(broker.url, broker.vhost)
}, Broker.startMillis)

const COUNT = 1000

describe("a thousand stops in one second", () => {
  it.live(
    "are a thousand jobs that end as stopped, each told once, and the worker is there for the next",
    () =>
      Effect.gen(function*() {
        const broker = yield* acquireBroker
        yield* startWorker(broker, { instance: "w1", script: endless, slots: COUNT })
        yield* served(broker, controlQueue("w1"))
        const client = yield* startClient(broker, { answerLimit: "30 seconds" })
        const names = Array.from({ length: COUNT }, (_, n) => `j${n}`)
        const job = (name: string) => ({
          id: JobId.make(name),
          function: FunctionName.make("say"),
          args: { word: "x" }
        })
        const ends = new Map<string, Array<string>>()
        yield* Effect.forEach(names, (name) =>
          Effect.gen(function*() {
            const events = yield* client.follow(job(name))
            yield* Effect.forkScoped(Stream.runForEach(events, (event) =>
              Effect.sync(() => {
                if (event.event === "ended") ends.set(name, [...ends.get(name) ?? [], event.outcome._tag])
              })))
          }), { concurrency: 50, discard: true })
        yield* ask(() =>
          Broker.until(async () => (await broker.queue("stoker.jobs"))?.unacked, (n) => n === COUNT, 30_000)
        )
        const began = performance.now()
        const stopped = yield* Effect.forEach(
          names,
          (name) => client.stop({ id: JobId.make(name) }, { reason: "all", graceMs: 0 }),
          { concurrency: "unbounded" }
        )
        const tookMs = performance.now() - began
        assert.isTrue(stopped.every(({ settlement }) => settlement?.outcome._tag === "Stopped"))
        // A machine that does much else at the same time; with nothing else to do it takes a second.
        assert.isBelow(tookMs, 20_000)
        yield* queueIs(broker, "stoker.jobs", 0)
        yield* ask(() => Broker.until(async () => ends.size, (size) => size === COUNT))
        assert.isTrue([...ends.values()].every((told) => told.length === 1 && told[0] === "Stopped"))
      }).pipe(Effect.scoped),
    90_000
  )
})
