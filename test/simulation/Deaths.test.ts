/**
 * The real actors under a virtual clock, with random jobs, repeats, stops and worker deaths from a seed. Whatever
 * happens, what the README promises holds. `SEEDS=10000 npm test -- test/simulation` runs more, `SEED=7` one again.
 */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Stream } from "effect"
import { TestClock } from "effect/testing"
import { keyText } from "../../src/schemas/Ids.ts"
import { type Job, keyOf } from "../../src/schemas/Job.ts"
import { Outcome } from "../../src/schemas/Outcome.ts"
import {
  exited,
  finished,
  makeJob,
  makeWorker,
  makeWorld,
  outcomes,
  output,
  ready,
  type Script,
  toldOnce,
  type World
} from "../actors/World.ts"
import { pick, type Random, randomOf } from "../support/Random.ts"

/** Runs for its own time and ends by itself, unless it is stopped before. */
const scriptOf =
  (plans: ReadonlyMap<string, { readonly millis: number; readonly outcome: Outcome }>): Script => ({ job }, stop) => {
    const { millis, outcome } = plans.get(job.id) ?? { millis: 1, outcome: exited(0) }
    const end = Effect.raceFirst(
      Effect.as(Effect.sleep(millis), finished(outcome)),
      Effect.map(Deferred.await(stop), ({ reason }) => finished(Outcome.cases.Stopped.make({ reason })))
    )
    return Stream.concat(Stream.make(ready, output("x")), Stream.fromEffect(end))
  }

/** Some worker's time: jobs come, some twice, some are stopped, and perhaps it dies in the middle of it. */
const reign = Effect.fnUntraced(
  function*(
    world: World,
    random: Random,
    options: { name: string; script: Script; diesAt?: number },
    jobs: Array<Job>
  ) {
    const worker = yield* makeWorker(world, { ...options, config: { slots: 1 + random(3), maxAttempts: 2 } })
    yield* worker.sweep.pipe(Effect.orDie, Effect.forkDetach)
    for (const job of jobs) {
      yield* Effect.forkDetach(worker.deliver(job), { startImmediately: true })
      if (random(5) === 0) yield* Effect.forkDetach(worker.deliver(job), { startImmediately: true })
      yield* TestClock.adjust(random(200))
    }
    for (let n = random(4); n > 0; n--) {
      const job = pick(random, jobs)
      if (job !== undefined) yield* Effect.forkDetach(worker.stop(job, random(50)), { startImmediately: true })
      yield* TestClock.adjust(random(500))
    }
    return worker
  }
)

const simulate = Effect.fnUntraced(function*(seed: number) {
  const random = randomOf(seed)
  const world = makeWorld()
  const jobs = Array.from({ length: 2 + random(7) }, (_, n) => makeJob(`s${seed}-${n}`))
  const plans = new Map(jobs.map(({ id }) => {
    const outcome = pick(random, [
      exited(0),
      exited(1),
      Outcome.cases.Signalled.make({ phase: "run", signal: 11 }),
      Outcome.cases.SandboxFailed.make({ driver: "fake", reason: "no", remedy: "none" })
    ])
    return [id as string, { millis: random(3000), outcome: outcome ?? exited(0) }] as const
  }))
  const script = scriptOf(plans)

  for (let deaths = random(4), n = 0; n < deaths; n++) {
    const mine = jobs.filter((job) => world.unacked.has(keyText(keyOf(job))) || random(2) === 0)
    const name = `w${n}`
    const worker = yield* reign(world, random, { name, script, diesAt: 1 + random(80) }, mine)
    const end = yield* Effect.forkChild(worker.died, { startImmediately: true })
    for (let turn = 0; turn < 100 && end.pollUnsafe() === undefined; turn++) yield* TestClock.adjust("200 millis")
    if (end.pollUnsafe() === undefined) {
      yield* Fiber.interrupt(end)
      yield* worker.abort // it outlived its jobs: an orderly end
      continue
    }
    // The kernel and the watchdog take what it held; the janitor ends its claims; the broker redelivers.
    world.held = 0
    world.running.clear()
    const { journal } = yield* makeWorker(world, { name: `${name}-janitor` })
    for (const holder of yield* journal.holders) yield* journal.abandon(holder)
  }

  const last = yield* reign(world, random, { name: "last", script }, jobs)
  const idle = yield* Effect.forkChild(last.idle, { startImmediately: true })
  for (let turn = 0; turn < 200 && idle.pollUnsafe() === undefined; turn++) yield* TestClock.adjust("1 second")
  yield* Fiber.join(idle)
  yield* Effect.repeat(Effect.yieldNow, { times: 50 })

  assert.strictEqual(world.unacked.size, 0, "a delivery was not settled")
  assert.strictEqual(world.held, 0, "a sandbox is held")
  assert.isAtMost(world.overlap, 1, "a job ran twice at once")
  assert.strictEqual((yield* last.journal.owed(10)).length, 0, "a message is owed")
  assert.strictEqual(last.desk.claims.size, 0, "a claim is held")
  for (const job of jobs) {
    const record = yield* last.journal.get(keyOf(job))
    assert.deepStrictEqual(outcomes(world, job), [JSON.stringify(record?.settlement?.outcome)], `${job.id}: outcomes`)
    assert.strictEqual(toldOnce(world, job).at(-1), "Ended", `${job.id}: the last status`)
    assert.isAtMost(world.begun.filter((key) => key === keyText(keyOf(job))).length, 2, `${job.id}: attempts`)
  }
})

const one = process.env["SEED"]
const seeds = one === undefined
  ? Array.from({ length: Number(process.env["SEEDS"] ?? 200) }, (_, n) => n + 1)
  : [Number(one)]

describe("whatever happens to workers", () => {
  it.effect(
    `every job has one outcome, told, and nothing is held (${seeds.length} seeds)`,
    () =>
      Effect.forEach(seeds, (seed) =>
        Effect.scoped(simulate(seed)).pipe(
          Effect.catchDefect((defect) => Effect.die(new Error(`SEED=${seed}: ${String(defect)}`, { cause: defect })))
        ), { discard: true }),
    Math.max(60_000, seeds.length * 200)
  )
})
