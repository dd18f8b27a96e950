/** What every journal promises, whatever keeps its rows. Called by one small file per implementation. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, type Layer, type Scope } from "effect"
import { TestClock } from "effect/testing"
import {
  type Claim,
  type ClaimAnswer,
  type ClaimOptions,
  type JobRecord,
  Journal,
  type JournalError
} from "../../src/layers/journal/Journal.ts"
import type { JournalOptions } from "../../src/layers/journal/JournalBackend.ts"
import { standardTerms } from "../../src/schemas/Terms.ts"
import * as Sample from "./samples.ts"

/** A layer on the same rows each time it is built, as a worker that starts again finds them. */
export type Worker = Layer.Layer<Journal, JournalError>
/** A new, empty place for rows, until the scope closes. */
export type Place = (options?: JournalOptions) => Effect.Effect<Worker, never, Scope.Scope>

const ann = Sample.instance("ann")
const bob = Sample.instance("bob")
const by = (instance: ClaimOptions["instance"], options: Partial<ClaimOptions> = {}): ClaimOptions => ({
  instance,
  leaseMs: 10_000,
  maxAttempts: 2,
  ...options
})

const claimOf = (answer: ClaimAnswer): Claim => {
  if (answer._tag !== "Granted" && answer._tag !== "Exhausted") return assert.fail(`no claim but ${answer._tag}`)
  return answer.claim
}

export const suite = (name: string, place: Place) => {
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

  describe(`Journal: ${name}`, { timeout: 30_000 }, () => {
    promise("a submitted job is queued, and a repeat answers with its record", (journal) =>
      Effect.gen(function*() {
        yield* TestClock.adjust("1 minute")
        const request = Sample.request("a")
        const record = yield* journal.submit(request)
        assert.deepStrictEqual(record, {
          request,
          state: "queued",
          attempt: 0,
          receivedAtMs: 60_000,
          terms: standardTerms
        })
        yield* TestClock.adjust("1 minute")
        assert.deepStrictEqual(yield* journal.submit(request), record)
        assert.deepStrictEqual(yield* Sample.queued(journal), [request])
        assert.deepStrictEqual(yield* journal.get(Sample.key("a")), record)
      }))

    it.effect("a worker that starts again finds everything that was answered", () =>
      Effect.gen(function*() {
        const worker = yield* place()
        const messages = [Sample.message("1"), Sample.message("2")]
        const first = Journal.use((journal) =>
          Effect.gen(function*() {
            const claim = claimOf(yield* journal.claim(Sample.request("ended"), by(ann)))
            yield* journal.settle(claim, Sample.settlement(1), messages)
            yield* journal.submit(Sample.request("queued"))
            return claimOf(yield* journal.claim(Sample.request("running"), by(ann)))
          })
        )
        const running = yield* first.pipe(Effect.provide(worker, { local: true }))
        const second = Journal.use((journal) =>
          Effect.gen(function*() {
            assert.deepStrictEqual((yield* journal.get(Sample.key("ended")))?.settlement, Sample.settlement(1))
            assert.deepStrictEqual((yield* journal.owed(10)).map(({ message }) => message), messages)
            assert.deepStrictEqual(yield* Sample.queued(journal), [Sample.request("queued")])
            assert.deepStrictEqual(yield* journal.holders, [ann])
            assert.deepStrictEqual(yield* journal.renew([running], 1000), [])
          })
        )
        yield* second.pipe(Effect.provide(worker, { local: true }))
      }))

    promise(
      "the same id with another request is refused, and the job that has the id is not touched",
      (journal) =>
        Effect.gen(function*() {
          const record = yield* journal.submit(Sample.request("a"))
          const other = Sample.request("a", "other")
          assert.strictEqual((yield* Effect.flip(journal.submit(other)))._tag, "IdConflict")
          assert.strictEqual((yield* Effect.flip(journal.claim(other, by(ann))))._tag, "IdConflict")
          assert.deepStrictEqual(yield* journal.get(Sample.key("a")), record)
          yield* journal.claim(Sample.request("a"), by(ann))
          assert.strictEqual((yield* Effect.flip(journal.claim(other, by(ann))))._tag, "IdConflict")
        })
    )

    promise("the same id through another door or of another owner is another job", (journal) =>
      Effect.gen(function*() {
        const requests = [
          Sample.request("a"),
          Sample.request("a", "b", { intake: Sample.key("a", "grpc").intake }),
          Sample.request("a", "c", { owner: Sample.key("a", "grpc", "eve").owner })
        ]
        for (const request of requests) yield* journal.submit(request)
        assert.deepStrictEqual(yield* Sample.queued(journal), requests)
        const found = yield* journal.list({ id: "a", limit: 10 })
        assert.deepStrictEqual(found.map(({ request }) => request), requests.toReversed())
      }))

    promise("a new delivery is granted, and held while its lease holds", (journal) =>
      Effect.gen(function*() {
        const granted = yield* journal.claim(Sample.request("a"), by(ann))
        const claim = { key: Sample.key("a"), instance: ann, attempt: 1, fence: 1 }
        assert.deepStrictEqual(granted, { _tag: "Granted", claim })
        yield* TestClock.adjust("9999 millis")
        const held: ClaimAnswer = { _tag: "Held", instance: ann, fence: 1, untilMs: 10_000, isLapsed: false }
        assert.deepStrictEqual(yield* journal.claim(Sample.request("a"), by(bob)), held)
        assert.deepStrictEqual(yield* journal.claim(Sample.request("a"), by(ann)), held)
        assert.deepStrictEqual(yield* journal.submit(Sample.request("a")), {
          request: Sample.request("a"),
          state: "running",
          attempt: 1,
          instance: ann,
          receivedAtMs: 0,
          startedAtMs: 0
        })
        assert.deepStrictEqual(yield* Sample.queued(journal), [])
      }))

    promise(
      "when a lease runs out another worker goes on, and the first can write no more",
      (journal) =>
        Effect.gen(function*() {
          const old = claimOf(yield* journal.claim(Sample.request("a"), by(ann)))
          yield* TestClock.adjust("10 seconds")
          const next = yield* journal.claim(Sample.request("a"), by(bob))
          assert.deepStrictEqual(next, { _tag: "Granted", claim: { ...old, instance: bob, attempt: 2, fence: 2 } })
          const lost = yield* Effect.flip(journal.settle(old, Sample.settlement(1), [Sample.message("1")]))
          assert.strictEqual(lost._tag, "ClaimLost")
          assert.deepStrictEqual(yield* journal.renew([old, claimOf(next)], 1000), [old])
          yield* journal.release(old)
          assert.strictEqual((yield* journal.get(old.key))?.instance, bob)
          assert.deepStrictEqual(yield* journal.owed(10), [])
        })
    )

    promise(
      "a lapsed claim is left to its holder by who cannot know that he is dead, and ended by who can",
      (journal) =>
        Effect.gen(function*() {
          yield* journal.submit(Sample.request("embedded"))
          const careful = by(bob, { leavesLapsed: true })
          const embedded = claimOf(yield* journal.claim(Sample.request("embedded"), by(ann)))
          yield* journal.claim(Sample.request("delivered"), by(ann))
          yield* TestClock.adjust("9 seconds")
          const lapse = { key: embedded.key, instance: ann, fence: 1, untilMs: 10_000 }
          assert.deepStrictEqual(yield* journal.lapsed(10), [])
          assert.isFalse(yield* journal.expire(lapse))
          yield* TestClock.adjust("1 second")
          // A delivered job's redelivery finds the claim itself.
          assert.deepStrictEqual(yield* journal.lapsed(10), [lapse])
          const held: ClaimAnswer = { _tag: "Held", instance: ann, fence: 1, untilMs: 10_000, isLapsed: true }
          for (const id of ["embedded", "delivered"]) {
            assert.deepStrictEqual(yield* journal.claim(Sample.request(id), careful), held)
          }
          assert.isFalse(yield* journal.expire({ ...lapse, fence: 2 }))
          assert.isFalse(yield* journal.expire({ ...lapse, instance: bob }))
          assert.isTrue(yield* journal.expire(lapse))
          assert.isFalse(yield* journal.expire(lapse))
          assert.isTrue(yield* journal.expire({ ...lapse, key: Sample.key("delivered") }))
          assert.deepStrictEqual(yield* journal.lapsed(10), [])
          assert.deepStrictEqual((yield* journal.queued(10)).jobs.map(({ request }) => request.job.id as string), [
            "embedded"
          ])
          for (const id of ["embedded", "delivered"]) {
            const { attempt, fence } = claimOf(yield* journal.claim(Sample.request(id), careful))
            assert.deepStrictEqual([attempt, fence], [2, 2])
          }
        })
    )

    promise("a claim that was renewed after it was seen to lapse is not ended", (journal) =>
      Effect.gen(function*() {
        yield* journal.submit(Sample.request("a"))
        const claim = claimOf(yield* journal.claim(Sample.request("a"), by(ann)))
        yield* TestClock.adjust("1 minute")
        const [seen] = yield* journal.lapsed(10)
        assert.isDefined(seen)
        yield* journal.renew([claim], 1000)
        yield* TestClock.adjust("1 minute")
        assert.isTrue(seen !== undefined && !(yield* journal.expire(seen)))
        assert.strictEqual((yield* journal.get(claim.key))?.instance, ann)
      }))

    promise("a claim whose lease ran out still stands while nobody took over", (journal) =>
      Effect.gen(function*() {
        const claim = claimOf(yield* journal.claim(Sample.request("a"), by(ann)))
        yield* TestClock.adjust("1 hour")
        assert.deepStrictEqual(yield* journal.renew([claim], 5000), [])
        assert.strictEqual((yield* journal.claim(Sample.request("a"), by(bob)))._tag, "Held")
        yield* TestClock.adjust("1 hour")
        yield* journal.settle(claim, Sample.settlement(1), [])
        assert.strictEqual((yield* journal.get(claim.key))?.state, "ended")
      }))

    promise(
      "which files a job left, and which it did not, is written down with its end",
      (journal) =>
        Effect.gen(function*() {
          const claim = claimOf(yield* journal.claim(Sample.request("a"), by(ann)))
          const settlement = {
            ...Sample.settlement(1),
            artefacts: [{ path: "d/ünïcode \u{1f600}", bytes: 2 ** 40, sha256: "0123456789abcdef".repeat(4) }],
            artefactsStored: [{ path: "y", bucket: "out-put", key: "run-y", bytes: 0 }],
            artefactsMissing: [{ path: "x", reason: "there is no such file" }]
          }
          yield* journal.settle(claim, settlement, [])
          assert.deepStrictEqual((yield* journal.get(claim.key))?.settlement, settlement)
          assert.deepStrictEqual((yield* journal.list({ limit: 1 }))[0]?.settlement, settlement)
        })
    )

    promise(
      "when all attempts ended with their workers, the claim is given to settle the job as lost",
      (journal) =>
        Effect.gen(function*() {
          yield* journal.claim(Sample.request("a"), by(ann))
          yield* TestClock.adjust("10 seconds")
          yield* journal.claim(Sample.request("a"), by(ann))
          yield* TestClock.adjust("10 seconds")
          const answer = yield* journal.claim(Sample.request("a"), by(bob))
          const claim = { key: Sample.key("a"), instance: bob, attempt: 2, fence: 3 }
          assert.deepStrictEqual(answer, { _tag: "Exhausted", claim, attempts: 2 })
          const settlement = Sample.settlement(2, { _tag: "Lost", attempts: 2 })
          yield* journal.settle(claim, settlement, [])
          const settled: ClaimAnswer = { _tag: "Settled", settlement }
          assert.deepStrictEqual(yield* journal.claim(Sample.request("a"), by(ann)), settled)
        })
    )

    promise(
      "an ended job is answered again within the window, and is new after it",
      (journal) =>
        Effect.gen(function*() {
          const claim = claimOf(yield* journal.claim(Sample.request("a"), by(ann)))
          yield* journal.settle(claim, Sample.settlement(1), [])
          yield* TestClock.adjust("1439 minutes")
          const settled: ClaimAnswer = { _tag: "Settled", settlement: Sample.settlement(1) }
          assert.deepStrictEqual(yield* journal.claim(Sample.request("a"), by(bob)), settled)
          assert.strictEqual((yield* journal.submit(Sample.request("a"))).state, "ended")
          assert.strictEqual((yield* Effect.flip(journal.submit(Sample.request("a", "other"))))._tag, "IdConflict")
          yield* TestClock.adjust("1 minute")
          const again = claimOf(yield* journal.claim(Sample.request("a", "other"), by(bob)))
          assert.deepStrictEqual(again, { key: claim.key, instance: bob, attempt: 1, fence: 2 })
          assert.deepStrictEqual(yield* journal.get(claim.key), {
            request: Sample.request("a", "other"),
            state: "running",
            attempt: 1,
            instance: bob,
            receivedAtMs: 86_400_000,
            startedAtMs: 86_400_000
          })
        })
    )

    promise("the window is an option", (journal) =>
      Effect.gen(function*() {
        const claim = claimOf(yield* journal.claim(Sample.request("a"), by(ann)))
        yield* journal.settle(claim, Sample.settlement(1), [])
        yield* TestClock.adjust("1 minute")
        assert.strictEqual((yield* journal.submit(Sample.request("a"))).state, "queued")
      }), { dedupeWindow: "1 minute" })

    promise("ended jobs are removed after their retention, others never", (journal) =>
      Effect.gen(function*() {
        const end = (id: string) =>
          Effect.flatMap(journal.claim(Sample.request(id), by(ann)), (answer) =>
            journal.settle(claimOf(answer), Sample.settlement(1), [Sample.message(id)]))
        yield* journal.submit(Sample.request("queued"))
        for (const id of ["a", "b", "c"]) {
          yield* end(id)
        }
        yield* TestClock.adjust("61 minutes")
        yield* end("d")
        yield* end("e")
        const left = yield* journal.list({ limit: 10 })
        assert.deepStrictEqual(
          left.map(({ request }) =>
            request.job.id as string
          ),
          ["e", "d", "queued"]
        )
        assert.strictEqual((yield* journal.owed(10)).length, 5)
      }), { dedupeWindow: "1 minute", retention: "1 hour" })

    promise(
      "the queue gives the oldest first, and keeps a job's place when it is given back",
      (journal) =>
        Effect.gen(function*() {
          const ids = ["c", "a", "b"]
          for (const id of ids) yield* journal.submit(Sample.request(id))
          const queued = (limit: number) =>
            Effect.map(Sample.queued(journal, limit), (requests) => requests.map(({ job }) => job.id as string))
          assert.deepStrictEqual(yield* queued(10), ids)
          assert.deepStrictEqual(yield* queued(2), ["c", "a"])
          const claim = claimOf(yield* journal.claim(Sample.request("c"), by(ann)))
          assert.strictEqual(claim.attempt, 1)
          assert.deepStrictEqual(yield* queued(10), ["a", "b"])
          yield* journal.release(claim)
          assert.deepStrictEqual(yield* queued(10), ids)
          assert.deepStrictEqual(yield* queued(0), [])
        })
    )

    promise("renewing prolongs the leases that are ours and names the others", (journal) =>
      Effect.gen(function*() {
        const claims = yield* Effect.forEach(["a", "b", "c"], (id) =>
          Effect.map(journal.claim(Sample.request(id), by(ann)), claimOf))
        const [a, b, c] = claims
        assert.isTrue(a !== undefined && b !== undefined && c !== undefined)
        if (a === undefined || b === undefined || c === undefined) {
          return
        }
        yield* journal.settle(b, Sample.settlement(1), [])
        const unknown = { ...a, key: Sample.key("unknown") }
        yield* TestClock.adjust("5 seconds")
        const older = { ...c, fence: c.fence - 1 }
        assert.deepStrictEqual(yield* journal.renew([a, b, unknown, older], 20_000), [b, unknown, older])
        yield* TestClock.adjust("19 seconds")
        assert.strictEqual((yield* journal.claim(Sample.request("a"), by(bob)))._tag, "Held")
        assert.strictEqual((yield* journal.claim(Sample.request("c"), by(bob)))._tag, "Granted")
        assert.deepStrictEqual(yield* journal.renew([], 1000), [])
      }))

    promise("what a job owes is owed in order until it is told", (journal) =>
      Effect.gen(function*() {
        const owe = (id: string, ...ids: ReadonlyArray<string>) =>
          Effect.flatMap(journal.claim(Sample.request(id), by(ann)), (answer) =>
            journal.settle(claimOf(answer), Sample.settlement(1), ids.map(Sample.message)))
        const first = yield* owe("a", "a1", "a2")
        const second = yield* owe("b", "b1")
        assert.deepStrictEqual(
          first.map(({ message }) =>
            message
          ),
          [Sample.message("a1"), Sample.message("a2")]
        )
        assert.deepStrictEqual(yield* journal.owed(10), [...first, ...second])
        assert.deepStrictEqual(yield* journal.owed(2), first)
        yield* journal.told(first.map(({ row }) => row))
        yield* journal.told([...first, ...first].map(({ row }) => row))
        yield* journal.told([])
        assert.deepStrictEqual(yield* journal.owed(10), second)
      }))

    promise(
      "what waits is counted: rows nobody has claimed, messages not struck off",
      (journal) =>
        Effect.gen(function*() {
          assert.deepStrictEqual(yield* journal.counts, { queued: 0, owed: 0 })
          for (const id of ["a", "b", "c"]) yield* journal.submit(Sample.request(id))
          const claim = claimOf(yield* journal.claim(Sample.request("a"), by(ann)))
          assert.deepStrictEqual(yield* journal.counts, { queued: 2, owed: 0 })
          const owed = yield* journal.settle(claim, Sample.settlement(1), ["1", "2"].map(Sample.message))
          assert.deepStrictEqual(yield* journal.counts, { queued: 2, owed: 2 })
          yield* journal.told(owed.map(({ row }) => row))
          assert.deepStrictEqual(yield* journal.counts, { queued: 2, owed: 0 })
        })
    )

    promise("settling again writes nothing and answers with what is still owed", (journal) =>
      Effect.gen(function*() {
        const claim = claimOf(yield* journal.claim(Sample.request("a"), by(ann)))
        const messages = [Sample.message("1"), Sample.message("2")]
        const [told, ...left] = yield* journal.settle(claim, Sample.settlement(1), messages)
        yield* journal.told(told === undefined ? [] : [told.row])
        const another = Sample.settlement(1, { _tag: "Stopped", reason: "too late" })
        assert.deepStrictEqual(yield* journal.settle(claim, another, messages), left)
        assert.deepStrictEqual((yield* journal.get(claim.key))?.settlement, Sample.settlement(1))
        assert.deepStrictEqual(yield* journal.owed(10), left)
        const older = { ...claim, fence: 0 }
        assert.strictEqual((yield* Effect.flip(journal.settle(older, another, messages)))._tag, "ClaimLost")
      }))

    promise(
      "a job given back unrun is queued or forgotten, and the attempt is not counted",
      (journal) =>
        Effect.gen(function*() {
          yield* journal.submit(Sample.request("embedded"))
          const embedded = claimOf(yield* journal.claim(Sample.request("embedded"), by(ann)))
          yield* journal.release(embedded)
          const queued = {
            request: Sample.request("embedded"),
            attempt: 0,
            receivedAtMs: 0,
            startedAtMs: 0,
            terms: standardTerms
          }
          assert.deepStrictEqual(yield* journal.get(embedded.key), { ...queued, state: "queued" })
          assert.deepStrictEqual(yield* journal.claim(Sample.request("embedded"), by(bob)), {
            _tag: "Granted",
            claim: { ...embedded, instance: bob, attempt: 1, fence: 2 }
          })
          const delivered = claimOf(yield* journal.claim(Sample.request("delivered"), by(ann)))
          yield* journal.release(delivered)
          assert.isUndefined(yield* journal.get(delivered.key))
          yield* journal.release(delivered)
          assert.strictEqual(
            (yield* Effect.flip(journal.settle(delivered, Sample.settlement(1), [])))._tag,
            "ClaimLost"
          )
        })
    )

    promise(
      "a job put off after a try keeps the attempt it used up, and awaits its redelivery",
      (journal) =>
        Effect.gen(function*() {
          const first = claimOf(yield* journal.claim(Sample.request("a"), by(ann)))
          yield* journal.postpone(first)
          assert.strictEqual((yield* journal.get(first.key))?.state, "running")
          assert.deepStrictEqual(yield* journal.holders, [])
          const second = claimOf(yield* journal.claim(Sample.request("a"), by(bob)))
          assert.strictEqual(second.attempt, 2)
          yield* journal.postpone(first)
          assert.strictEqual((yield* journal.get(first.key))?.instance, bob)
        })
    )

    promise(
      "a delivered job that was taken over is queued again when its worker dies, without a redelivery",
      (journal) =>
        Effect.gen(function*() {
          const claim = claimOf(yield* journal.claim(Sample.request("a"), by(ann)))
          assert.isTrue(yield* journal.own(claim))
          assert.isFalse(yield* journal.own({ ...claim, fence: claim.fence + 1 }))
          yield* journal.abandon(ann)
          assert.deepStrictEqual((yield* Sample.queued(journal)).map(({ job }) => job.id as string), ["a"])
          assert.strictEqual(claimOf(yield* journal.claim(Sample.request("a"), by(bob))).attempt, 2)
        })
    )

    promise(
      "a claim that was given back fits no later one, not even of the same worker",
      (journal) =>
        Effect.gen(function*() {
          const old = claimOf(yield* journal.claim(Sample.request("a"), by(ann)))
          yield* journal.release(old)
          const claim = claimOf(yield* journal.claim(Sample.request("a"), by(ann)))
          assert.strictEqual(claim.attempt, 1)
          assert.isAbove(claim.fence, old.fence)
          yield* journal.release(old)
          assert.strictEqual((yield* journal.get(claim.key))?.instance, ann)
          assert.deepStrictEqual(yield* journal.renew([old, claim], 1000), [old])
          assert.strictEqual((yield* Effect.flip(journal.settle(old, Sample.settlement(1), [])))._tag, "ClaimLost")
        })
    )

    promise(
      "a delivered job that ran before and is given back awaits its redelivery",
      (journal) =>
        Effect.gen(function*() {
          yield* journal.claim(Sample.request("a"), by(ann))
          yield* TestClock.adjust("10 seconds")
          yield* journal.release(claimOf(yield* journal.claim(Sample.request("a"), by(bob))))
          assert.deepStrictEqual(yield* Sample.queued(journal), [])
          assert.deepStrictEqual(yield* journal.holders, [])
          const { attempt, fence } = claimOf(yield* journal.claim(Sample.request("a"), by(ann)))
          assert.deepStrictEqual([attempt, fence], [2, 3])
        })
    )

    promise("giving back the claim on a lost job earns it no further attempt", (journal) =>
      Effect.gen(function*() {
        yield* journal.submit(Sample.request("a"))
        yield* journal.claim(Sample.request("a"), by(ann, { maxAttempts: 1 }))
        yield* journal.abandon(ann)
        for (const _ of [1, 2, 3]) {
          const answer = yield* journal.claim(Sample.request("a"), by(bob, { maxAttempts: 1 }))
          assert.strictEqual(answer._tag, "Exhausted")
          yield* journal.release(claimOf(answer))
          assert.strictEqual((yield* Sample.queued(journal)).length, 1)
        }
      }))

    promise(
      "a dead worker's jobs are queued again or await redelivery, their attempts counted",
      (journal) =>
        Effect.gen(function*() {
          yield* journal.submit(Sample.request("embedded"))
          yield* journal.submit(Sample.request("untouched"))
          const embedded = claimOf(yield* journal.claim(Sample.request("embedded"), by(ann)))
          const delivered = claimOf(yield* journal.claim(Sample.request("delivered"), by(ann)))
          const ended = claimOf(yield* journal.claim(Sample.request("ended"), by(ann)))
          yield* journal.settle(ended, Sample.settlement(1), [])
          yield* journal.claim(Sample.request("another"), by(bob))
          assert.deepStrictEqual(yield* journal.holders, [ann, bob])
          assert.strictEqual(yield* journal.abandon(ann), 2)
          assert.strictEqual(yield* journal.abandon(ann), 0)
          assert.deepStrictEqual(yield* journal.holders, [bob])
          assert.strictEqual((yield* journal.get(ended.key))?.state, "ended")
          assert.deepStrictEqual((yield* Sample.queued(journal)).map(({ job }) => job.id as string), [
            "embedded",
            "untouched"
          ])
          for (const claim of [embedded, delivered]) {
            const lost = yield* Effect.flip(journal.settle(claim, Sample.settlement(1), []))
            assert.strictEqual(lost._tag, "ClaimLost")
            assert.deepStrictEqual(yield* journal.renew([claim], 1000), [claim])
            const again = yield* journal.claim(Sample.request(claim.key.id), by(bob))
            assert.deepStrictEqual(again, { _tag: "Granted", claim: { ...claim, instance: bob, attempt: 2, fence: 2 } })
          }
          assert.strictEqual(yield* journal.abandon(bob), 3)
          for (const { key } of [embedded, delivered]) {
            assert.strictEqual((yield* journal.claim(Sample.request(key.id), by(ann)))._tag, "Exhausted")
          }
        })
    )

    promise("of many workers that claim a job at once exactly one has it", (journal) =>
      Effect.gen(function*() {
        const answers = yield* Effect.forEach(
          Array.from({ length: 50 }, (_, index) => Sample.instance(`worker-${index}`)),
          (instance) => journal.claim(Sample.request("a"), by(instance)),
          { concurrency: "unbounded" }
        )
        assert.strictEqual(answers.filter(({ _tag }) => _tag === "Granted").length, 1)
        assert.strictEqual(answers.filter(({ _tag }) => _tag === "Held").length, 49)
      }))

    promise("jobs are listed newest first, by id and by state", (journal) =>
      Effect.gen(function*() {
        for (const id of ["a", "b"]) yield* journal.submit(Sample.request(id))
        yield* journal.submit(Sample.request("a", "x", { intake: Sample.key("a", "grpc").intake }))
        yield* journal.claim(Sample.request("b"), by(ann))
        const listed = (filter: Parameters<typeof journal.list>[0]) =>
          Effect.map(journal.list(filter), (records) =>
            records.map(({ request: { job }, state }) => `${job.intake}/${job.id} ${state}`))
        const [grpcA, b, a] = ["grpc/a queued", "embedded/b running", "embedded/a queued"]
        assert.deepStrictEqual(yield* listed({ limit: 10 }), [grpcA, b, a])
        assert.deepStrictEqual(yield* listed({ limit: 2 }), [grpcA, b])
        assert.deepStrictEqual(yield* listed({ state: "queued", limit: 10 }), [grpcA, a])
        assert.deepStrictEqual(yield* listed({ id: "a", limit: 10 }), [grpcA, a])
        assert.deepStrictEqual(yield* listed({ id: "b", state: "queued", limit: 10 }), [])
        assert.deepStrictEqual(yield* listed({ id: "b", state: "running", limit: 10 }), [b])
        assert.isUndefined(yield* journal.get(Sample.key("c")))
      }))

    promise(
      "a list leaves out what was sent as arguments where it is much; who asks for an id gets it whole",
      (journal) =>
        Effect.gen(function*() {
          const { job, ...rest } = Sample.request("large")
          const text = `\u0000 \ud800 "${"x".repeat(100_000)}`
          const class_ = "oci-small"
          const large = { ...rest, job: Sample.jobOf({ ...job, args: { text, args: { args: 1 } }, class: class_ }) }
          yield* journal.submit(large)
          yield* journal.submit(Sample.request("small"))
          const [small, listed] = yield* journal.list({ limit: 10 })
          assert.deepStrictEqual(small?.request.job, Sample.request("small").job)
          assert.deepStrictEqual(listed?.request.job, { ...large.job, args: {} })
          const { owner } = large.job
          const ofOwner = yield* journal.list({ owner, limit: 10 })
          assert.deepStrictEqual(ofOwner.map(({ request }) => request.job.args), [small?.request.job.args, {}])
          const [whole] = yield* journal.list({ id: "large", limit: 1 })
          assert.deepStrictEqual(whole?.request.job.args, large.job.args)
        })
    )

    promise("a list of many is put together from parts, and has no row twice", (journal) =>
      Effect.gen(function*() {
        const names = Array.from({ length: 130 }, (_, at) => `job-${at}`)
        for (const id of names) yield* journal.submit(Sample.request(id))
        for (const limit of [49, 50, 51, 100, 101, 129, 130, 131, 1000]) {
          const listed = yield* journal.list({ limit })
          assert.deepStrictEqual(
            listed.map(({ request: { job } }) => String(job.id)),
            names.toReversed().slice(0, limit)
          )
        }
        assert.deepStrictEqual(yield* journal.list({ limit: 0 }), [])
      }))

    /** Two owners with two functions each, in all states: `<owner>-<function>-<number>`. */
    const many = Effect.fnUntraced(function*(journal: Journal["Service"], rounds: number) {
      for (let round = 0; round < rounds; round += 1) {
        for (const owner of ["ann", "bob"]) {
          for (const name of ["fib", "noop"]) {
            const { job, ...rest } = Sample.request(`${owner}-${name}-${round}`)
            const request = { ...rest, job: Sample.jobOf({ ...job, owner, function: name }) }
            yield* journal.submit(request)
            if (round % 3 === 0) continue
            const claim = claimOf(yield* journal.claim(request, by(ann)))
            if (round % 3 === 1) yield* journal.settle(claim, Sample.settlement(1), [])
          }
        }
      }
    })
    const idsOf = (records: ReadonlyArray<JobRecord>) => records.map(({ request: { job } }) => String(job.id))

    promise(
      "jobs are listed by any of owner, function and state together, and by pages of any size alike",
      (journal) =>
        Effect.gen(function*() {
          yield* many(journal, 9)
          const all = yield* journal.list({ limit: 1000 })
          assert.strictEqual(all.length, 36)
          const filters = [undefined, "ann", "eve"].flatMap((owner) =>
            [undefined, "noop", "none"].flatMap((name) =>
              ([undefined, "queued", "running", "ended"] as const).flatMap((state) =>
                [undefined, "ann-noop-4"].map((id) => ({ owner, function: name, state, id }))
              )
            )
          )
          for (const wanted of filters) {
            const { function: name, id, owner, state } = wanted
            const expected = all.filter(({ request: { job }, ...record }) =>
              (owner === undefined || job.owner === owner) && (name === undefined || job.function === name) &&
              (state === undefined || record.state === state) && (id === undefined || job.id === id)
            )
            const filter = {
              ...(owner === undefined ? {} : { owner }),
              ...(name === undefined ? {} : { function: name }),
              ...(state === undefined ? {} : { state }),
              ...(id === undefined ? {} : { id })
            }
            for (const limit of [1, 4, 1000]) {
              const found: Array<JobRecord> = []
              let page = yield* journal.list({ ...filter, limit })
              while (page.length > 0) {
                assert.isAtMost(page.length, limit)
                found.push(...page)
                const last = page.at(-1)
                page = last === undefined ? [] : yield* journal.list({ ...filter, before: last.cursor, limit })
              }
              assert.deepStrictEqual(idsOf(found), idsOf(expected), JSON.stringify({ ...filter, limit }))
            }
          }
        })
    )

    promise("what comes, goes or changes between two pages shifts nothing", (journal) =>
      Effect.gen(function*() {
        for (const id of ["a", "b", "c", "d", "e", "f"]) yield* journal.submit(Sample.request(id))
        const first = yield* journal.list({ limit: 3 })
        assert.deepStrictEqual(idsOf(first), ["f", "e", "d"])
        const cursor = first.at(-1)?.cursor
        if (cursor === undefined) return assert.fail("no cursor")
        for (const id of ["d", "f", "c", "a"]) {
          const claim = claimOf(yield* journal.claim(Sample.request(id), by(ann)))
          if (id === "a") continue
          yield* journal.settle(claim, Sample.settlement(1), [])
          // Also the very row the cursor was taken from.
          if (id !== "c") assert.strictEqual(yield* journal.remove(Sample.key(id)), "Removed")
        }
        yield* journal.submit(Sample.request("new"))
        yield* journal.submit(Sample.request("d"))
        const rest = yield* journal.list({ before: cursor, limit: 3 })
        assert.deepStrictEqual(idsOf(rest), ["c", "b", "a"])
        assert.deepStrictEqual(yield* journal.list({ before: rest.at(-1)?.cursor ?? cursor, limit: 3 }), [])
        assert.deepStrictEqual(idsOf(yield* journal.list({ limit: 2 })), ["d", "new"])
      }))

    promise(
      "a record says when the latest claim began, also when nobody has it any more",
      (journal) =>
        Effect.gen(function*() {
          const started = () => Effect.map(journal.get(Sample.key("a")), (record) => record?.startedAtMs)
          yield* journal.submit(Sample.request("a"))
          assert.isUndefined(yield* started())
          yield* TestClock.adjust("1 second")
          yield* journal.claim(Sample.request("a"), by(ann))
          assert.strictEqual(yield* started(), 1000)
          yield* TestClock.adjust("1 second")
          yield* journal.abandon(ann)
          assert.strictEqual(yield* started(), 1000)
          yield* TestClock.adjust("1 second")
          const claim = claimOf(yield* journal.claim(Sample.request("a"), by(bob)))
          yield* TestClock.adjust("1 second")
          yield* journal.settle(claim, Sample.settlement(2), [])
          assert.strictEqual(yield* started(), 3000)
        })
    )

    promise(
      "only what has ended is removed; what is owed for it stays owed, and no old claim fits a new job",
      (journal) =>
        Effect.gen(function*() {
          const key = Sample.key("a")
          assert.strictEqual(yield* journal.remove(key), "Missing")
          yield* journal.submit(Sample.request("a"))
          assert.strictEqual(yield* journal.remove(key), "Busy")
          const first = claimOf(yield* journal.claim(Sample.request("a"), by(ann)))
          assert.strictEqual(yield* journal.remove(key), "Busy")
          yield* journal.settle(first, Sample.settlement(1), [Sample.message("owed")])
          assert.strictEqual(yield* journal.remove(key), "Removed")
          assert.isUndefined(yield* journal.get(key))
          assert.deepStrictEqual(yield* journal.list({ limit: 10 }), [])
          assert.strictEqual(yield* journal.remove(key), "Missing")
          assert.deepStrictEqual((yield* journal.owed(10)).map(({ message }) => message), [Sample.message("owed")])

          // Another request may have the id now, and runs.
          const other = Sample.request("a", "other")
          const second = claimOf(yield* journal.claim(other, by(ann)))
          assert.strictEqual(second.attempt, 1)
          assert.isAbove(second.fence, first.fence)
          const lost = yield* Effect.flip(journal.settle(first, Sample.settlement(1), []))
          assert.strictEqual(lost._tag, "ClaimLost")
          assert.deepStrictEqual(yield* journal.renew([first, second], 1000), [first])
        })
    )
  })
}
