/** What every door that keeps jobs promises, whatever keeps them. Called by one small file for each. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Queue, Scope } from "effect"
import * as Books from "../../src/actors/JobBooks.ts"
import type { Delivery } from "../../src/layers/intake/Intake.ts"
import type { Journal } from "../../src/layers/journal/Journal.ts"
import { InstanceId } from "../../src/schemas/Ids.ts"
import { Outcome } from "../../src/schemas/Outcome.ts"
import type { Priority, RetryPolicy } from "../../src/schemas/Terms.ts"
import { noUsage } from "../../src/schemas/Usage.ts"

export interface Sending {
  readonly priority?: Priority
  /** Milliseconds from now. */
  readonly delayMs?: number
  readonly ttlMs?: number
  readonly retry?: RetryPolicy
  /** What it says: another word is another request. */
  readonly word?: string
}

export interface Door {
  /** As a client leaves a job at it; durable when this returns. */
  readonly send: (id: string, sending?: Sending) => Effect.Effect<void, unknown>
  /** The door in a worker of its own, until the scope closes: what it hands over. Weights are 16, 4 and 1. */
  readonly open: Effect.Effect<Queue.Dequeue<Delivery>, unknown, Scope.Scope>
  /** The journal of its workers. */
  readonly journal: Journal["Service"]
  readonly letters: Effect.Effect<ReadonlyArray<{ readonly id: string; readonly reason: string }>, unknown>
  /** Nothing is left in it, nor on its way. */
  readonly isEmpty: Effect.Effect<boolean, unknown>
  /** Time passes: real, or the test's. */
  readonly pass: (millis: number) => Effect.Effect<void>
  /** Waits for something that comes soon. */
  readonly soon: <A, E>(effect: Effect.Effect<A, E>) => Effect.Effect<A, E>
}

export type Place = Effect.Effect<Door, unknown, Scope.Scope>

const instance = InstanceId.make("suite")
const succeeded = Outcome.cases.Exited.make({ phase: "run", code: 0 })
const failed = Outcome.cases.SandboxFailed.make({ driver: "test", reason: "no room", remedy: "none" })
const onFailure = (maxAttempts: number, backoffMs: number): RetryPolicy => ({
  on: ["SandboxFailed"],
  maxAttempts,
  backoffMs
})

/** What the job actor does with a delivery, without running anything. */
const work = Effect.fnUntraced(function*({ journal }: Door, delivery: Delivery, outcome: Outcome = succeeded) {
  const options = { instance, leaseMs: 60_000, maxAttempts: 2, tries: delivery.attempt ?? 1 }
  const answer = yield* Effect.result(journal.claim(delivery, options))
  if (answer._tag === "Failure") {
    yield* delivery.reject(answer.failure.message)
    return "refused"
  }
  if (answer.success._tag !== "Granted") {
    yield* delivery.ack
    return answer.success._tag
  }
  const { claim } = answer.success
  const result = yield* Books.tooLate(delivery)
  const came = result?.outcome ?? outcome
  if ((yield* delivery.retry?.(came, claim) ?? Effect.succeed(false)) === true) {
    yield* journal.postpone(claim)
    yield* delivery.ack
    return "again"
  }
  const settlement = { outcome: came, usage: noUsage, output: [], attempt: claim.attempt, endedAtMs: 0 }
  yield* journal.settle(claim, settlement, [])
  yield* delivery.ack
  return came._tag
})

const outcomesOf = ({ journal }: Door, id: string) =>
  Effect.map(journal.list({ id, limit: 10 }), (records) => records.map(({ settlement }) => settlement?.outcome._tag))

export const suite = (name: string, how: "effect" | "live", place: Place) => {
  const register = how === "effect" ? it.effect : it.live
  const promise = (what: string, body: (door: Door) => Effect.Effect<unknown, unknown, Scope.Scope>) =>
    register(what, () => Effect.scoped(Effect.flatMap(place, body)))

  /** Nothing comes, for longer than anything here takes. */
  const nothing = Effect.fnUntraced(function*(door: Door, arrived: Queue.Dequeue<Delivery>, millis = 800) {
    yield* door.pass(millis)
    assert.strictEqual(Queue.sizeUnsafe(arrived), 0, "something came")
  })

  describe(`Intake: ${name}`, { timeout: 60_000 }, () => {
    promise("a job is handed over once, and forgotten when it is acked", (door) =>
      Effect.gen(function*() {
        const first = yield* Scope.make()
        const arrived = yield* door.open.pipe(Scope.provide(first))
        yield* door.send("a")
        const delivery = yield* door.soon(Queue.take(arrived))
        assert.strictEqual(delivery.job.id, "a")
        yield* nothing(door, arrived)
        assert.strictEqual(yield* work(door, delivery), "Exited")
        yield* nothing(door, arrived)
        yield* Scope.close(first, Exit.void)
        yield* nothing(door, yield* door.open)
        assert.isTrue(yield* door.isEmpty)
        assert.deepStrictEqual(yield* door.letters, [])
      }))

    promise("what is rejected is kept with the reason, and comes no more", (door) =>
      Effect.gen(function*() {
        const arrived = yield* door.open
        yield* door.send("a")
        yield* (yield* door.soon(Queue.take(arrived))).reject("nobody wants it")
        yield* nothing(door, arrived)
        assert.deepStrictEqual(yield* door.letters, [{ id: "a", reason: "nobody wants it" }])
        assert.isTrue(yield* door.isEmpty)
      }))

    promise("what is given back comes again, and the attempt is not counted", (door) =>
      Effect.gen(function*() {
        const arrived = yield* door.open
        yield* door.send("a")
        for (const _ of [1, 2]) {
          const delivery = yield* door.soon(Queue.take(arrived))
          const answer = yield* door.journal.claim(delivery, { instance, leaseMs: 60_000, maxAttempts: 1 })
          if (answer._tag !== "Granted") return assert.fail(answer._tag)
          assert.strictEqual(answer.claim.attempt, 1)
          yield* door.journal.release(answer.claim)
          yield* delivery.giveBack
        }
        yield* door.pass(1500)
        const delivery = yield* door.soon(Queue.take(arrived))
        assert.strictEqual(delivery.attempt ?? 1, 1)
        assert.strictEqual(yield* work(door, delivery), "Exited")
      }))

    promise(
      "a failed try comes again, later each time, and after the last one it is kept",
      (door) =>
        Effect.gen(function*() {
          const arrived = yield* door.open
          yield* door.send("a", { retry: onFailure(3, 1000) })
          for (const [attempt, pause] of [[1, 1000], [2, 2000]] as const) {
            const delivery = yield* door.soon(Queue.take(arrived))
            assert.strictEqual(delivery.attempt, attempt)
            assert.strictEqual(yield* work(door, delivery, failed), "again")
            yield* nothing(door, arrived, pause - 400)
            yield* door.pass(400)
          }
          const last = yield* door.soon(Queue.take(arrived))
          assert.strictEqual(last.attempt, 3)
          assert.strictEqual(yield* work(door, last, failed), "SandboxFailed")
          yield* nothing(door, arrived)
          assert.deepStrictEqual(yield* door.letters, [{
            id: "a",
            reason: "gave up after 3 tries: could not be run by test: no room. none"
          }])
          assert.deepStrictEqual(yield* outcomesOf(door, "a"), ["SandboxFailed"])
          assert.isTrue(yield* door.isEmpty)
        })
    )

    promise("an outcome that is not named is not tried again, nor kept", (door) =>
      Effect.gen(function*() {
        const arrived = yield* door.open
        yield* door.send("a", { retry: onFailure(3, 100) })
        const killed = Outcome.cases.Signalled.make({ phase: "run", signal: 9 })
        assert.strictEqual(yield* work(door, yield* door.soon(Queue.take(arrived)), killed), "Signalled")
        yield* nothing(door, arrived)
        assert.deepStrictEqual(yield* door.letters, [])
      }))

    promise(
      "a delayed job does not come before its time, and does not hold up others",
      (door) =>
        Effect.gen(function*() {
          const arrived = yield* door.open
          yield* door.send("later", { delayMs: 2000 })
          yield* door.send("now")
          const now = yield* door.soon(Queue.take(arrived))
          assert.strictEqual(now.job.id, "now")
          yield* work(door, now)
          yield* nothing(door, arrived, 1000)
          yield* door.pass(1000)
          const later = yield* door.soon(Queue.take(arrived))
          assert.strictEqual(later.job.id, "later")
          assert.strictEqual(yield* work(door, later), "Exited")
        })
    )

    promise("a job nobody took in time is not run, but kept", (door) =>
      Effect.gen(function*() {
        yield* door.send("old", { ttlMs: 500 })
        yield* door.send("fresh", { ttlMs: 600_000 })
        yield* door.pass(1000)
        const arrived = yield* door.open
        const came: Record<string, string> = {}
        while (came["fresh"] === undefined) {
          const delivery = yield* door.soon(Queue.take(arrived))
          came[delivery.job.id] = yield* work(door, delivery)
        }
        yield* door.pass(300)
        assert.strictEqual(came["fresh"], "Exited")
        assert.notStrictEqual(came["old"], "Exited")
        assert.deepStrictEqual(yield* door.letters, [{ id: "old", reason: "expired in the queue" }])
        assert.isTrue(yield* door.isEmpty)
      }))

    promise("under load the high jobs come first, and the low ones are not starved", (door) =>
      Effect.gen(function*() {
        for (const priority of ["low", "normal", "high"] as const) {
          for (let n = 0; n < 20; n++) yield* door.send(`${priority}-${n}`, { priority })
        }
        const arrived = yield* door.open
        // Every level is there before the first is taken.
        yield* door.pass(1000)
        const order: Array<string> = []
        while (order.length < 60) {
          const delivery = yield* door.soon(Queue.take(arrived))
          order.push(delivery.priority ?? "none")
          yield* work(door, delivery)
        }
        const among = (first: number, level: string) => order.slice(0, first).filter((name) => name === level).length
        assert.isAtLeast(among(20, "high"), 12, order.join(" "))
        assert.isAtLeast(among(30, "normal"), 4, order.join(" "))
        assert.isAtLeast(among(40, "low"), 1, order.join(" "))
        assert.strictEqual(among(60, "low"), 20)
      }))

    promise("the same request twice is one job", (door) =>
      Effect.gen(function*() {
        const arrived = yield* door.open
        yield* door.send("a")
        assert.strictEqual(yield* work(door, yield* door.soon(Queue.take(arrived))), "Exited")
        yield* door.send("a")
        yield* door.pass(800)
        for (const delivery of yield* Queue.clear(arrived)) assert.strictEqual(yield* work(door, delivery), "Settled")
        assert.deepStrictEqual(yield* outcomesOf(door, "a"), ["Exited"])
        assert.isTrue(yield* door.isEmpty)
      }))

    promise(
      "another request under the same id is refused, and the first one is not touched",
      (door) =>
        Effect.gen(function*() {
          const arrived = yield* door.open
          yield* door.send("a")
          assert.strictEqual(yield* work(door, yield* door.soon(Queue.take(arrived))), "Exited")
          const sent = yield* Effect.exit(door.send("a", { word: "other" }))
          yield* door.pass(800)
          const refused = yield* Effect.forEach(yield* Queue.clear(arrived), (delivery) => work(door, delivery))
          yield* door.pass(300)
          // Told at once, or kept.
          if (Exit.isFailure(sent)) {
            assert.deepStrictEqual(refused, [])
          } else {
            assert.deepStrictEqual(refused, ["refused"])
            assert.match((yield* door.letters)[0]?.reason ?? "", /already taken by another request/)
          }
          assert.deepStrictEqual(yield* outcomesOf(door, "a"), ["Exited"])
          assert.isTrue(yield* door.isEmpty)
        })
    )

    promise("a job whose worker died before the ack comes again, and ends once", (door) =>
      Effect.gen(function*() {
        const first = yield* Scope.make()
        const arrived = yield* door.open.pipe(Scope.provide(first))
        yield* door.send("a")
        const delivery = yield* door.soon(Queue.take(arrived))
        const claim = yield* door.journal.claim(delivery, { instance, leaseMs: 60_000, maxAttempts: 2 })
        assert.strictEqual(claim._tag, "Granted")
        // Neither settled nor given back; its janitor ends the claim.
        yield* Scope.close(first, Exit.void)
        yield* door.journal.abandon(instance)
        const again = yield* door.soon(Queue.take(yield* door.open))
        assert.strictEqual(yield* work(door, again), "Exited")
        assert.strictEqual((yield* door.journal.list({ id: "a", limit: 1 }))[0]?.attempt, 2)
        assert.deepStrictEqual(yield* outcomesOf(door, "a"), ["Exited"])
        yield* door.pass(300)
        assert.isTrue(yield* door.isEmpty)
      }))
  })
}
