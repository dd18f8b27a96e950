import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Queue } from "effect"
import { TestClock } from "effect/testing"
import * as Actor from "../../src/actors/Actor.ts"

type Message =
  | { readonly _tag: "Add"; readonly n: number }
  | { readonly _tag: "Sum"; readonly reply: Actor.Reply<number> }
  | { readonly _tag: "Crash" }

const intensity: Actor.RestartIntensity = { times: 2, within: "1 minute", backoff: "1 second" }

const summing = (starts: { count: number } = { count: 0 }) => (mailbox: Actor.Mailbox<Message>) =>
  Effect.gen(function*() {
    starts.count += 1
    let sum = 0
    while (true) {
      const message = yield* Queue.take(mailbox)
      switch (message._tag) {
        case "Add":
          sum += message.n
          break
        case "Sum":
          yield* message.reply.succeed(sum)
          break
        case "Crash":
          return yield* Effect.die("crash")
      }
    }
  }).pipe(Effect.catchTag("Done", () => Effect.void))

describe("an actor", () => {
  it.effect("handles what it is told in order and answers what it is asked", () =>
    Effect.gen(function*() {
      const ref = yield* Actor.start<Message, never, never>({ name: "a", capacity: 4, restart: intensity }, summing())
      for (const n of [1, 2, 3, 4, 5, 6]) yield* ref.tell({ _tag: "Add", n })
      assert.strictEqual(yield* ref.ask<number>((reply) => ({ _tag: "Sum", reply })), 21)
    }))

  it.effect("makes its senders wait while its mailbox is full", () =>
    Effect.gen(function*() {
      const open = yield* Deferred.make<void>()
      const ref = yield* Actor.start<number, never, never>(
        { name: "slow", capacity: 2, restart: Actor.noRestart },
        () => Effect.andThen(Deferred.await(open), Effect.never)
      )
      yield* ref.tell(1)
      yield* ref.tell(2)
      const third = yield* Effect.forkChild(ref.tell(3), { startImmediately: true })
      yield* Effect.repeat(Effect.yieldNow, { times: 20 })
      assert.isUndefined(third.pollUnsafe())
      yield* Fiber.interrupt(third)
    }))

  it.effect("starts again after a failure with the messages that waited, its pause doubling", () =>
    Effect.gen(function*() {
      const starts = { count: 0 }
      const ref = yield* Actor.start<Message, never, never>(
        { name: "a", capacity: 8, restart: intensity },
        summing(starts)
      )
      yield* ref.tell({ _tag: "Crash" })
      yield* ref.tell({ _tag: "Add", n: 7 })
      yield* TestClock.adjust("999 millis")
      assert.strictEqual(starts.count, 1)
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(starts.count, 2)
      assert.strictEqual(yield* ref.ask<number>((reply) => ({ _tag: "Sum", reply })), 7)
      yield* ref.tell({ _tag: "Crash" })
      yield* TestClock.adjust("1999 millis")
      assert.strictEqual(starts.count, 2)
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(starts.count, 3)
    }))

  it.effect("that fails too often in its period is given up, and whoever waits for it hears why", () =>
    Effect.gen(function*() {
      const ref = yield* Actor.start<Message, never, never>({ name: "a", capacity: 8, restart: intensity }, summing())
      for (let n = 0; n < 3; n++) yield* ref.tell({ _tag: "Crash" })
      const waiting = yield* Effect.forkChild(Effect.flip(ref.ask<number>((reply) => ({ _tag: "Sum", reply }))), {
        startImmediately: true
      })
      const watching = yield* Effect.forkChild(Effect.flip(ref.ended), { startImmediately: true })
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual((yield* Fiber.join(waiting))._tag, "ActorEnded")
      const failure = yield* Fiber.join(watching)
      assert.strictEqual(failure.failures, 3)
      assert.strictEqual((yield* Effect.flip(ref.tell({ _tag: "Add", n: 1 })))._tag, "ActorEnded")
    }))

  it.effect("forgets failures older than its period", () =>
    Effect.gen(function*() {
      const starts = { count: 0 }
      const ref = yield* Actor.start<Message, never, never>(
        { name: "a", capacity: 8, restart: intensity },
        summing(starts)
      )
      for (let n = 0; n < 6; n++) {
        yield* ref.tell({ _tag: "Crash" })
        yield* TestClock.adjust("2 minutes")
      }
      assert.strictEqual(starts.count, 7)
    }))

  it.effect("that is stopped handles what waits, then takes no more", () =>
    Effect.gen(function*() {
      const ref = yield* Actor.start<Message, never, never>({ name: "a", capacity: 8, restart: intensity }, summing())
      yield* ref.tell({ _tag: "Add", n: 1 })
      yield* ref.stop
      yield* ref.ended
      assert.strictEqual((yield* Effect.flip(ref.tell({ _tag: "Add", n: 1 })))._tag, "ActorEnded")
    }))

  it.effect("ends with its scope", () =>
    Effect.gen(function*() {
      const ref = yield* Effect.scoped(
        Actor.start<Message, never, never>({ name: "a", capacity: 8, restart: intensity }, summing())
      )
      yield* ref.ended
      assert.strictEqual((yield* Effect.flip(ref.tell({ _tag: "Add", n: 1 })))._tag, "ActorEnded")
    }))

  it.effect("hands over what was told and never handled", () =>
    Effect.gen(function*() {
      const left: Array<number> = []
      const unhandled = (message: number) => Effect.sync(() => void left.push(message))
      const actor = yield* Actor.start<number, never, never>(
        { name: "one", capacity: 8, restart: Actor.noRestart, unhandled },
        // Handles the first, and ends while others wait.
        (mailbox) => Effect.andThen(Effect.ignore(Queue.take(mailbox)), Effect.yieldNow)
      )
      yield* actor.tell(1)
      yield* actor.tell(2)
      yield* actor.tell(3)
      yield* actor.ended
      assert.deepStrictEqual(left, [2, 3])
      assert.strictEqual((yield* Effect.flip(actor.tell(4)))._tag, "ActorEnded")
      assert.deepStrictEqual(left, [2, 3])
    }))
})
