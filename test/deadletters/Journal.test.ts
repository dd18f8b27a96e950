import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import { DeadLetters } from "../../src/layers/deadletters/DeadLetters.ts"
import * as DeadLettersJournal from "../../src/layers/deadletters/DeadLettersJournal.ts"
import * as DeadLettersOf from "../../src/layers/deadletters/DeadLettersOf.ts"
import { Journal } from "../../src/layers/journal/Journal.ts"
import * as JournalMemory from "../../src/layers/journal/JournalMemory.ts"
import { standardTerms } from "../../src/schemas/Terms.ts"
import * as Sample from "../journal/samples.ts"

const place = Effect.gen(function*() {
  const layer = DeadLettersJournal.layer.pipe(Layer.provideMerge(JournalMemory.layerMemory))
  const context = yield* Layer.build(Layer.fresh(layer))
  return { journal: Context.get(context, Journal), letters: Context.get(context, DeadLetters) }
})

const bury = (journal: Journal["Service"], id: string, owner = "local") =>
  journal.bury(
    {
      request: Sample.request(id, "x", Sample.key(id, "embedded", owner)),
      terms: standardTerms,
      tries: 2,
      receivedAtMs: 0
    },
    { reason: `${id} failed`, remedy: "none" }
  )

describe("dead letters of the embedded queue", () => {
  it.effect("are the oldest first, with the whole job, by key or by id", () =>
    Effect.gen(function*() {
      const { journal, letters } = yield* place
      yield* TestClock.adjust("1 second")
      yield* bury(journal, "b")
      yield* TestClock.adjust("1 second")
      yield* bury(journal, "a")
      const { letters: [first], total } = yield* letters.list(1)
      assert.strictEqual(total, 2)
      assert.deepInclude(first, {
        id: "embedded/local/b",
        queue: "embedded",
        time: "1970-01-01T00:00:01.000Z",
        messageId: "b",
        user: "local",
        reason: "b failed"
      })
      const open = yield* letters.show("a")
      assert.deepInclude(JSON.parse(new TextDecoder().decode(open.body)), { id: "a", function: "command" })
      assert.deepInclude(open.headers, { priority: "normal", tries: 2 })
      assert.deepStrictEqual(yield* letters.show("embedded/local/a"), open)
      yield* bury(journal, "a", "eve")
      assert.match((yield* Effect.flip(letters.show("a"))).message, /several letters have the id a/)
      assert.strictEqual((yield* Effect.flip(letters.show("c")))._tag, "LetterNotFound")
    }).pipe(Effect.scoped))

  it.effect("a retry queues the job again; one whose id waits or runs stays, and of all only those are left", () =>
    Effect.gen(function*() {
      const { journal, letters } = yield* place
      for (const id of ["a", "b"]) yield* bury(journal, id)
      assert.deepStrictEqual((yield* letters.retry(["a"])).map(({ id }) => id), ["embedded/local/a"])
      assert.deepStrictEqual((yield* Sample.queued(journal)).map(({ job }) => String(job.id)), ["a"])
      yield* bury(journal, "a", "local").pipe(Effect.andThen(journal.submit(Sample.request("c"))))
      yield* journal.bury(
        { request: Sample.request("c", "other"), terms: standardTerms, tries: 1, receivedAtMs: 0 },
        { reason: "conflict", remedy: "none" }
      )
      assert.match((yield* Effect.flip(letters.retry(["c"]))).message, /a job of that id waits or runs/)
      const sent = yield* letters.retry("all")
      assert.deepStrictEqual(sent.map(({ messageId }) => messageId).toSorted(), ["a", "b"])
      assert.deepStrictEqual((yield* letters.list(10)).letters.map(({ messageId }) => messageId), ["c"])
    }).pipe(Effect.scoped))

  it.effect("a missing one spoils the others of one command: nothing is done", () =>
    Effect.gen(function*() {
      const { journal, letters } = yield* place
      yield* bury(journal, "a")
      assert.strictEqual((yield* Effect.flip(letters.drop(["a", "never"])))._tag, "LetterNotFound")
      assert.strictEqual((yield* letters.list(10)).total, 1)
      assert.strictEqual((yield* letters.drop(["a"])).length, 1)
      assert.strictEqual((yield* letters.list(10)).total, 0)
    }).pipe(Effect.scoped))

  it.effect("two places are one: each letter is found, sent and thrown away where it is", () =>
    Effect.gen(function*() {
      const one = yield* place
      const two = yield* place
      yield* bury(one.journal, "a")
      yield* TestClock.adjust("1 second")
      yield* bury(two.journal, "b")
      yield* TestClock.adjust("1 second")
      yield* bury(one.journal, "c")
      const both = DeadLettersOf.make(one.letters, two.letters)
      const listed = yield* both.list(2)
      assert.strictEqual(listed.total, 3)
      assert.deepStrictEqual(listed.letters.map(({ messageId }) => messageId), ["a", "b"])
      assert.strictEqual((yield* both.show("b")).messageId, "b")
      assert.strictEqual((yield* Effect.flip(both.show("never")))._tag, "LetterNotFound")
      assert.strictEqual((yield* Effect.flip(both.drop(["a", "never"])))._tag, "LetterNotFound")
      assert.strictEqual((yield* both.list(10)).total, 3)
      assert.strictEqual((yield* both.retry(["a", "b"])).length, 2)
      assert.strictEqual((yield* Sample.queued(one.journal)).length, 1)
      assert.strictEqual((yield* Sample.queued(two.journal)).length, 1)
      assert.strictEqual((yield* both.drop("all")).length, 1)
      assert.strictEqual((yield* both.list(10)).total, 0)
    }).pipe(Effect.scoped))
})
