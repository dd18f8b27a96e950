/** What every journal promises as a queue: terms, tries, bounds, dead letters. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { type ClaimAnswer, type ClaimOptions, Journal, type QueuedJob } from "../../src/layers/journal/Journal.ts"
import type { JournalOptions } from "../../src/layers/journal/JournalBackend.ts"
import { keyText, Owner } from "../../src/schemas/Ids.ts"
import { keyOf } from "../../src/schemas/Job.ts"
import { standardTerms, type Terms } from "../../src/schemas/Terms.ts"
import * as Sample from "./samples.ts"
import type { Place } from "./suite.ts"

const ann = Sample.instance("ann")
const bob = Sample.instance("bob")
const by = (instance: ClaimOptions["instance"], options: Partial<ClaimOptions> = {}): ClaimOptions => ({
  instance,
  leaseMs: 10_000,
  maxAttempts: 2,
  ...options
})
const claimOf = (answer: ClaimAnswer) => {
  if (answer._tag !== "Granted" && answer._tag !== "Exhausted") return assert.fail(`no claim but ${answer._tag}`)
  return answer.claim
}
const terms = (some: Partial<Terms>): Terms => ({ ...standardTerms, ...some })
const ids = (jobs: ReadonlyArray<QueuedJob>) => jobs.map(({ request: { job } }) => String(job.id))
const why = { reason: "it failed", remedy: "repair it" }

export const queueSuite = (name: string, place: Place) => {
  const promise = (
    what: string,
    body: (journal: Journal["Service"]) => Effect.Effect<unknown, unknown>,
    options?: JournalOptions
  ) =>
    it.effect(what, () =>
      Effect.gen(function*() {
        const worker = yield* place(options)
        yield* Effect.flatMap(Journal, body).pipe(Effect.provide(worker, { local: true }))
      }))
  const submit = (journal: Journal["Service"], id: string, some: Partial<Terms> = {}) =>
    journal.submit(Sample.request(id), { terms: terms(some) })

  describe(`Journal as a queue: ${name}`, { timeout: 30_000 }, () => {
    promise(
      "many low rows never hide a high one, and within a priority the oldest comes first",
      (journal) =>
        Effect.gen(function*() {
          const low = Array.from({ length: 30 }, (_, n) => `low-${n}`)
          yield* Effect.forEach(low, (id) => submit(journal, id, { priority: "low" }))
          yield* TestClock.adjust("1 second")
          yield* submit(journal, "usual")
          yield* submit(journal, "high", { priority: "high" })
          const { jobs } = yield* journal.queued(3)
          assert.deepStrictEqual(ids(jobs), ["high", "usual", "low-0", "low-1", "low-2"])
          assert.strictEqual(jobs[0]?.terms.priority, "high")
          const some = yield* journal.queued(3, ["embedded/local/high", "embedded/local/low-1"])
          assert.deepStrictEqual(ids(some.jobs), ["usual", "low-0", "low-2", "low-3"])
        })
    )

    promise(
      "owners take turns: who queues many does not keep the others from theirs",
      (journal) =>
        Effect.gen(function*() {
          const by = (owner: string, id: string, some: Partial<Terms> = {}) =>
            journal.submit(Sample.request(id, "first", { owner: Owner.make(owner) }), { terms: terms(some) })
          yield* Effect.forEach(Array.from({ length: 30 }, (_, n) => n), (n) => by("ann", `ann-${n}`))
          yield* TestClock.adjust("1 second")
          yield* Effect.forEach(["zoe", "bob", "cid", "dan"], (owner) =>
            Effect.forEach([0, 1, 2], (n) => by(owner, `${owner}-${n}`)))
          yield* by("eve", "later", { notBeforeMs: 1e9 })
          const start = { high: "", normal: "", low: "" }
          assert.deepStrictEqual(ids((yield* journal.queued(4)).jobs), ["ann-0", "ann-1", "ann-2", "ann-3"])
          const first = yield* journal.queued(4, [], start)
          assert.deepStrictEqual(ids(first.jobs), ["ann-0", "bob-0", "cid-0", "dan-0"])
          assert.deepStrictEqual(first.round, { high: "", normal: "dan", low: "" })
          // Behind dan are eve, who has nothing yet, and zoe; then it begins again.
          const handed = first.jobs.map(({ request: { job } }) =>
            keyText(keyOf(job))
          )
          const second = yield* journal.queued(4, handed, first.round)
          assert.deepStrictEqual(ids(second.jobs), ["ann-1", "zoe-0", "bob-1"])
          assert.deepStrictEqual(second.round?.normal, "bob")
          const few = yield* journal.queued(7, [], { ...start, normal: "eve" })
          assert.deepStrictEqual(ids(few.jobs).toSorted(), ["ann-0", "bob-0", "cid-0", "dan-0", "zoe-0"])
          // Whoever has all there is gets all there is.
          const rest = yield* journal.queued(100, [], start)
          assert.strictEqual(rest.jobs.length, 30 + 12)
        })
    )

    promise(
      "a delayed row is not there before its time, and it is known when that is",
      (journal) =>
        Effect.gen(function*() {
          yield* submit(journal, "later", { notBeforeMs: 20_000, priority: "low" })
          yield* submit(journal, "soon", { notBeforeMs: 10_000 })
          assert.deepStrictEqual(yield* journal.queued(10), { jobs: [], nextMs: 10_000 })
          yield* TestClock.adjust("5 seconds")
          yield* submit(journal, "now")
          yield* TestClock.adjust("4999 millis")
          assert.deepStrictEqual(ids((yield* journal.queued(10)).jobs), ["now"])
          yield* TestClock.adjust("1 millis")
          const due = yield* journal.queued(10)
          assert.deepStrictEqual(ids(due.jobs), ["now", "soon"])
          assert.strictEqual(due.nextMs, 20_000)
          assert.strictEqual((yield* journal.get(Sample.key("later")))?.terms?.notBeforeMs, 20_000)
          yield* TestClock.adjust("1 minute")
          // By when it was due, not by its priority alone: nobody waits for ever behind those that come later.
          assert.deepStrictEqual(ids((yield* journal.queued(10)).jobs), ["now", "soon", "later"])
          assert.isUndefined((yield* journal.queued(10)).nextMs)
        })
    )

    promise(
      "another try is queued for later, keeps its terms, and has attempts of its own",
      (journal) =>
        Effect.gen(function*() {
          yield* submit(journal, "a", { priority: "high", expiresAtMs: 90_000 })
          const first = claimOf(yield* journal.claim(Sample.request("a"), by(ann)))
          yield* journal.postpone(first, 5000)
          yield* journal.postpone(first, 1)
          assert.deepStrictEqual(yield* journal.queued(10), { jobs: [], nextMs: 5000 })
          const record = yield* journal.get(first.key)
          assert.deepInclude(record, { state: "queued", attempt: 1, tries: 2 })
          assert.deepStrictEqual(record?.terms, terms({ priority: "high", notBeforeMs: 5000, expiresAtMs: 90_000 }))
          yield* TestClock.adjust("5 seconds")
          assert.strictEqual((yield* journal.queued(10)).jobs[0]?.tries, 2)
          // Its workers die: twice in this try, whatever the one before has used.
          for (const attempt of [2, 3]) {
            const answer = yield* journal.claim(Sample.request("a"), by(bob, { tries: 2 }))
            assert.strictEqual(answer._tag, "Granted")
            assert.strictEqual(claimOf(answer).attempt, attempt)
            yield* journal.abandon(bob)
          }
          const lost = yield* journal.claim(Sample.request("a"), by(ann, { tries: 2 }))
          assert.deepInclude(lost, { _tag: "Exhausted", attempts: 2 })
        })
    )

    promise(
      "a delivered copy for a later try has attempts of its own, a repeat of an earlier one has not",
      (journal) =>
        Effect.gen(function*() {
          const one = { maxAttempts: 1 }
          yield* journal.postpone(claimOf(yield* journal.claim(Sample.request("a"), by(ann, one))))
          const repeat = yield* journal.claim(Sample.request("a"), by(ann, { ...one, tries: 1 }))
          assert.strictEqual(repeat._tag, "Exhausted")
          yield* journal.postpone(claimOf(repeat))
          assert.strictEqual((yield* journal.claim(Sample.request("a"), by(ann, { ...one, tries: 2 })))._tag, "Granted")
        })
    )

    promise(
      "who had a job in hand while another one tried it gets no claim on its next try",
      (journal) =>
        Effect.gen(function*() {
          yield* submit(journal, "a")
          const claim = claimOf(yield* journal.claim(Sample.request("a"), by(ann)))
          assert.strictEqual((yield* journal.claim(Sample.request("a"), by(bob)))._tag, "Held")
          yield* journal.postpone(claim, 5000)
          assert.deepStrictEqual(yield* journal.claim(Sample.request("a"), by(bob)), { _tag: "Later" })
          assert.deepStrictEqual(yield* journal.claim(Sample.request("a"), by(bob, { tries: 2 })), { _tag: "Later" })
          yield* TestClock.adjust("5 seconds")
          assert.deepStrictEqual(yield* journal.claim(Sample.request("a"), by(bob)), { _tag: "Later" })
          assert.strictEqual((yield* journal.claim(Sample.request("a"), by(bob, { tries: 2 })))._tag, "Granted")
        })
    )

    promise(
      "a row that is not due is claimed early by who ends it",
      (journal) =>
        Effect.gen(function*() {
          yield* journal.submit(Sample.request("a"), { terms: terms({ notBeforeMs: 99_000 }) })
          assert.deepStrictEqual(yield* journal.claim(Sample.request("a"), by(ann)), { _tag: "Later" })
          const claim = claimOf(yield* journal.claim(Sample.request("a"), by(ann, { early: true })))
          yield* journal.settle(claim, Sample.settlement(1), [])
          assert.deepStrictEqual(yield* journal.queued(10), { jobs: [] })
        })
    )

    promise(
      "a delivered job that was taken over awaits the copy for its next try, and is not queued beside it",
      (journal) =>
        Effect.gen(function*() {
          const claim = claimOf(yield* journal.claim(Sample.request("a"), by(ann)))
          assert.isTrue(yield* journal.own(claim))
          yield* journal.postpone(claim)
          assert.deepStrictEqual(yield* journal.queued(10), { jobs: [] })
          assert.strictEqual(claimOf(yield* journal.claim(Sample.request("a"), by(bob, { tries: 2 }))).attempt, 2)
        })
    )

    promise(
      "a full queue takes no new row, but answers repeats, and takes one when one is claimed",
      (journal) =>
        Effect.gen(function*() {
          const bounded = (id: string) => journal.submit(Sample.request(id), { maximum: 2 })
          yield* bounded("a")
          yield* journal.submit(Sample.request("b"), { maximum: 2, terms: terms({ notBeforeMs: 99_000 }) })
          const full = yield* Effect.flip(bounded("c"))
          assert.deepInclude(full, { _tag: "Overloaded", limit: "queueMaximum", maximum: 2 })
          assert.strictEqual((yield* bounded("a")).state, "queued")
          const claim = claimOf(yield* journal.claim(Sample.request("a"), by(ann)))
          yield* bounded("c")
          yield* journal.release(claim)
          assert.strictEqual((yield* Effect.flip(bounded("d")))._tag, "Overloaded")
          yield* journal.settle(claimOf(yield* journal.claim(Sample.request("c"), by(ann))), Sample.settlement(1), [])
          yield* journal.claim(Sample.request("a"), by(bob))
          yield* bounded("d")
          yield* journal.abandon(bob)
          assert.strictEqual((yield* Effect.flip(bounded("e")))._tag, "Overloaded")
        })
    )

    promise(
      "a dead letter has the whole job, and is kept only by who has the claim",
      (journal) =>
        Effect.gen(function*() {
          yield* submit(journal, "a", { priority: "low", expiresAtMs: 60_000 })
          const [queued] = (yield* journal.queued(1)).jobs
          if (queued === undefined) return assert.fail("it is not queued")
          const old = claimOf(yield* journal.claim(Sample.request("a"), by(ann)))
          yield* TestClock.adjust("10 seconds")
          const claim = claimOf(yield* journal.claim(Sample.request("a"), by(bob)))
          yield* journal.bury(queued, why, old)
          assert.deepStrictEqual(yield* journal.dead(10), { total: 0, letters: [] })
          yield* journal.bury(queued, why, claim)
          yield* journal.bury(queued, { ...why, reason: "it failed again" }, claim)
          const letter = { ...queued, ...why, reason: "it failed again", diedAtMs: 10_000 }
          assert.deepStrictEqual(yield* journal.dead(10), { total: 1, letters: [letter] })
          assert.deepStrictEqual(yield* journal.letter(claim.key), letter)
          assert.strictEqual((yield* journal.get(claim.key))?.state, "running")
          assert.isTrue(yield* journal.discard(claim.key))
          assert.isFalse(yield* journal.discard(claim.key))
          assert.isUndefined(yield* journal.letter(claim.key))
        })
    )

    promise("a queued job that is rejected ends so, and leaves the queue", (journal) =>
      Effect.gen(function*() {
        yield* submit(journal, "a")
        const [queued] = (yield* journal.queued(1)).jobs
        if (queued === undefined) return assert.fail("it is not queued")
        yield* journal.bury(queued, why)
        assert.deepStrictEqual(yield* Sample.queued(journal), [])
        const record = yield* journal.get(Sample.key("a"))
        assert.deepStrictEqual(record?.settlement?.outcome, { _tag: "Rejected", ...why })
        assert.strictEqual((yield* journal.dead(1)).total, 1)
      }))

    promise(
      "a dead job that is revived runs again, within the window of its id, and lives as long as it was given",
      (journal) =>
        Effect.gen(function*() {
          yield* submit(journal, "a", { priority: "high", notBeforeMs: 1000, expiresAtMs: 60_000 })
          yield* TestClock.adjust("1 second")
          const [queued] = (yield* journal.queued(1)).jobs
          if (queued === undefined) return assert.fail("it is not queued")
          const claim = claimOf(yield* journal.claim(Sample.request("a"), by(ann)))
          yield* journal.bury(queued, why, claim)
          assert.strictEqual((yield* journal.revive(claim.key))._tag, "Busy")
          yield* journal.settle(claim, Sample.settlement(1), [Sample.message("1")])
          yield* TestClock.adjust("1 minute")
          const revived = yield* journal.revive(claim.key)
          assert.strictEqual(revived._tag, "Queued")
          assert.strictEqual((yield* journal.revive(claim.key))._tag, "Missing")
          assert.deepStrictEqual((yield* journal.queued(1)).jobs, [{
            request: Sample.request("a"),
            terms: terms({ priority: "high", expiresAtMs: 121_000 }),
            tries: 1,
            receivedAtMs: 61_000
          }])
          const again = yield* journal.claim(Sample.request("a"), by(ann))
          assert.deepStrictEqual(again, { _tag: "Granted", claim: { ...claim, fence: 2 } })
          // What the first run owes is still owed.
          assert.strictEqual((yield* journal.owed(10)).length, 1)
        })
    )

    promise("old jobs and letters go without anything being settled", (journal) =>
      Effect.gen(function*() {
        yield* submit(journal, "waits")
        const claims = yield* Effect.forEach(["a", "b"], (id) =>
          Effect.map(journal.claim(Sample.request(id), by(ann)), claimOf))
        for (const claim of claims) {
          yield* journal.settle(claim, Sample.settlement(1), [])
        }
        yield* journal.bury({ request: Sample.request("dead"), terms: standardTerms, tries: 1, receivedAtMs: 0 }, why)
        const keys = ["embedded/local/a", "embedded/local/b", "embedded/local/waits", "embedded/local/never"]
        assert.deepStrictEqual(yield* journal.unknown(keys), ["embedded/local/never"])
        yield* TestClock.adjust("61 minutes")
        assert.strictEqual(yield* journal.prune, 2)
        assert.deepStrictEqual(
          yield* journal.unknown(keys),
          keys.filter((key) =>
            key !== "embedded/local/waits"
          )
        )
        assert.strictEqual((yield* journal.dead(1)).total, 1)
        yield* TestClock.adjust("1 hour")
        assert.strictEqual(yield* journal.prune, 1)
        assert.strictEqual((yield* journal.dead(1)).total, 0)
        assert.deepStrictEqual((yield* journal.list({ limit: 10 })).map(({ state }) => state), ["queued"])
      }), { dedupeWindow: "1 minute", retention: "1 hour", deadLetters: "2 hours" })
  })
}
