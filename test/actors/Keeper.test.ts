import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import * as Desk from "../../src/actors/Desk.ts"
import { Dispatcher } from "../../src/actors/Dispatcher.ts"
import * as Keeper from "../../src/actors/Keeper.ts"
import * as Settings from "../../src/layers/config/Settings.ts"
import { type Claim, Journal, JournalError } from "../../src/layers/journal/Journal.ts"
import * as JournalMemory from "../../src/layers/journal/JournalMemory.ts"
import { InstanceId, keyText } from "../../src/schemas/Ids.ts"
import { keyOf } from "../../src/schemas/Job.ts"
import { standardConfig } from "../../src/schemas/WorkerConfig.ts"
import { makeJob } from "./World.ts"

const leaseMs = 30_000
const away = new JournalError({ operation: "prolong", reason: "it is away", remedy: "wait" })

/** A journal that answers `renew` as the test says, and the claims the keeper gave up. */
const world = (scope: Journal["Service"]["scope"], renew: Effect.Effect<ReadonlyArray<Claim>, JournalError>) => {
  const lost: Array<number> = []
  const journal = Effect.map(Journal, (journal) => Journal.of({ ...journal, scope, renew: () => renew }))
  const dispatcher = Dispatcher.of({
    deliver: () => Effect.void,
    stop: () => Effect.succeed(false),
    claimLost: ({ fence }) => Effect.sync(() => void lost.push(fence)),
    inHand: Effect.succeed(0),
    idle: Effect.void,
    abort: Effect.void
  })
  const layer = Layer.mergeAll(
    Layer.provideMerge(Desk.layer, Settings.layer({ ...standardConfig, leaseMs })),
    Layer.effect(Journal, journal).pipe(Layer.provide(JournalMemory.layerMemory)),
    Layer.succeed(Dispatcher, dispatcher)
  )
  return { layer, lost }
}

const hold = Effect.gen(function*() {
  const key = keyOf(makeJob("job"))
  const claim: Claim = { key, instance: InstanceId.make("me"), attempt: 1, fence: 7 }
  const { claims } = yield* Desk.Desk
  claims.set(keyText(key), claim)
  yield* Effect.forkChild(Keeper.rounds)
})

/** Moves time in steps, so that each thing that waits goes on in its turn. */
const pass = (seconds: number) => Effect.repeat(TestClock.adjust("1 second"), { times: seconds - 1 })

describe("the keeper", () => {
  for (const [how, renew] of [["fails", Effect.fail(away)], ["hangs", Effect.never]] as const) {
    it.effect(`ends what it cannot renew before another host may take it over (the journal ${how})`, () => {
      const { layer, lost } = world("shared", renew)
      return Effect.gen(function*() {
        yield* hold
        yield* pass(30)
        assert.deepStrictEqual(lost, [])
        yield* pass(15)
        assert.include(lost, 7)
      }).pipe(Effect.provide(layer))
    })
  }

  it.effect("lets it run on where the lock of this worker tells that it lives", () => {
    const { layer, lost } = world("host", Effect.fail(away))
    return Effect.gen(function*() {
      yield* hold
      yield* pass(120)
      assert.deepStrictEqual(lost, [])
    }).pipe(Effect.provide(layer))
  })

  it.effect("gives up nothing that is renewed", () => {
    const { layer, lost } = world("shared", Effect.succeed([]))
    return Effect.gen(function*() {
      yield* hold
      yield* pass(120)
      assert.deepStrictEqual(lost, [])
    }).pipe(Effect.provide(layer))
  })
})
