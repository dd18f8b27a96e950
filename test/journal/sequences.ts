import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Predicate, Result } from "effect"
import { TestClock } from "effect/testing"
import { type Claim, Journal } from "../../src/layers/journal/Journal.ts"
import { priorities, standardRetry, type Terms } from "../../src/schemas/Terms.ts"
import { memory } from "./places.ts"
import * as Sample from "./samples.ts"
import type { Place } from "./suite.ts"

/** Mulberry32: the same numbers for the same seed, on every machine. */
const generator = (seed: number) => {
  let state = seed
  return (below: number) => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below
  }
}

type Step = (journal: Journal["Service"]) => Effect.Effect<unknown, unknown>

const why = { reason: "a reason", remedy: "a remedy" }
const instances = ["ann", "bob"].map(Sample.instance)

/** One random step. Few ids, instances and minutes, so that the steps meet. Claims are recent, old or made up. */
const step = (
  random: (below: number) => number,
  granted: ReadonlyArray<Claim>
): { readonly minutes: number; readonly run: Step } => {
  const id = `job-${random(3)}`
  const where = random(3) === 0 ? { intake: Sample.key(id, "grpc").intake } : {}
  const request = Sample.request(id, random(8) === 0 ? "other" : "first", where)
  const instance = instances[random(2)] ?? Sample.instance("ann")
  const madeUp: Claim = { key: Sample.keyOfRequest(request), instance, attempt: 1, fence: 1 + random(6) }
  const claim = granted.at(-1 - random(4)) ?? madeUp
  const options = {
    instance,
    leaseMs: 1 + random(240_000),
    maxAttempts: 1 + random(3),
    tries: 1 + random(2),
    leavesLapsed: random(2) === 0
  }
  const number = random(1000)
  const terms: Terms = {
    priority: priorities[random(3)] ?? "normal",
    ...(random(2) === 0 ? { notBeforeMs: random(1_000_000) } : {}),
    ...(random(2) === 0 ? { expiresAtMs: random(1_000_000) } : {}),
    retry: { ...standardRetry, maxAttempts: 1 + random(4) }
  }
  // Drawn here, not in the steps: each step runs once for every journal.
  const [limit, row, another] = [1 + random(4), 1 + random(20), 1 + random(20)]
  const steps: ReadonlyArray<Step> = [
    (journal) => journal.submit(request),
    (journal) => journal.submit(request),
    (journal) => journal.claim(request, options),
    (journal) => journal.claim(request, options),
    (journal) => journal.claim(request, options),
    (journal) => journal.settle(claim, Sample.settlement(number), [Sample.message(`m${number}`), Sample.message("n")]),
    (journal) => journal.settle(claim, Sample.settlement(number), []),
    (journal) => journal.release(claim),
    (journal) => journal.postpone(claim),
    (journal) => journal.postpone(claim, number * 100),
    (journal) => journal.submit(request, { terms, maximum: 3 }),
    (journal) => journal.bury({ request, terms, tries: 1, receivedAtMs: number }, why, claim),
    (journal) => journal.bury({ request, terms, tries: 2, receivedAtMs: number }, why),
    (journal) => journal.revive(Sample.keyOfRequest(request)),
    (journal) => journal.discard(Sample.keyOfRequest(request)),
    (journal) => journal.unknown([`embedded/local/${id}`, "embedded/local/never"]),
    (journal) => journal.prune,
    (journal) => journal.own(claim),
    (journal) => journal.renew([claim, { ...claim, fence: claim.fence + 1 }], options.leaseMs),
    (journal) => journal.abandon(instance),
    (journal) => Effect.flatMap(journal.lapsed(limit), Effect.forEach(journal.expire)),
    (journal) => journal.expire({ ...claim, untilMs: number }),
    (journal) => journal.queued(limit),
    (journal) => journal.queued(limit, [], { high: "", normal: instance.at(0) === "a" ? "" : "local", low: "" }),
    (journal) => journal.told([row, another]),
    (journal) => journal.remove(claim.key),
    (journal) => journal.get(claim.key),
    (journal) => journal.holders
  ]
  return { minutes: random(2), run: steps[random(steps.length)] ?? ((journal) => journal.holders) }
}

const claimsIn = (answer: unknown): ReadonlyArray<Claim> =>
  Predicate.hasProperty(answer, "claim") ? [answer.claim as Claim] : []

const everything = (journal: Journal["Service"]) =>
  Effect.all([
    journal.list({ limit: 100 }),
    journal.owed(100),
    journal.queued(100),
    journal.lapsed(100),
    journal.holders,
    journal.dead(100)
  ])

/** Random steps, the same on that journal and on one in memory, which has to answer alike. */
export const randomSteps = (name: string, place: Place, seeds: number, steps = 120) =>
  describe(`Journal: ${name}`, { timeout: 30_000 }, () => {
    it.effect.each(Array.from({ length: seeds }, (_, index) => index + 1))(
      "answers any sequence of steps as one in memory does (seed %i)",
      (seed) =>
        Effect.gen(function*() {
          const options = { dedupeWindow: "5 minutes", retention: "9 minutes", deadLetters: "7 minutes" } as const
          const journals = yield* Effect.forEach([place, memory], (place) =>
            Effect.flatMap(place(options), (worker) =>
              Effect.map(Layer.build(worker), (context) =>
                Context.get(context, Journal))))
          const random = generator(seed)
          const granted: Array<Claim> = []
          for (let count = 1; count <= steps; count += 1) {
            const { minutes, run } = step(random, granted)
            yield* TestClock.adjust(`${minutes} minutes`)
            const [left, right] = yield* Effect.forEach(journals, (journal) =>
              Effect.all([Effect.result(run(journal)), everything(journal)]))
            const answer = left?.[0]
            if (answer !== undefined && Result.isSuccess(answer)) {
              granted.push(...claimsIn(answer.success))
            }
            assert.deepStrictEqual(left, right, `seed ${seed}, step ${count}`)
          }
        })
    )
  })
