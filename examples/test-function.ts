/**
 * How a program tests its function: on a worker that has no machine, so without root and in no time.
 *
 *   node examples/test-function.ts
 */
import { Effect } from "effect"
import assert from "node:assert/strict"
import { test } from "node:test"
import { Control, Direct, Ids, Job, Outcome, requestHash } from "stoker"
import { ExecutorTest, layerWorkerTest } from "stoker/testing"
import { primes } from "./function.ts"

const worker = layerWorkerTest({ functions: [primes], script: ExecutorTest.printing("2\n3\n") })

/** Hands the job over and waits until it is settled. */
const settled = Effect.fnUntraced(function*(args: Job.Job["args"]) {
  const job: Job.Job = {
    intake: Ids.IntakeName.make("direct"),
    owner: Ids.Owner.make("local"),
    id: Ids.JobId.make("one"),
    function: Ids.FunctionName.make("primes"),
    args,
    limits: {}
  }
  const parted = yield* (yield* Direct).submit({ job, hash: requestHash(job), reply: null })
  assert.equal((yield* parted)._tag, "Settled")
  return yield* (yield* Control).status(Job.keyOf(job))
})

test("primes runs a script with the number", () =>
  Effect.gen(function*() {
    const { settlement } = yield* settled({ upTo: 3 })
    assert.ok(settlement !== undefined && Outcome.isSuccess(settlement.outcome))
    const [run] = yield* (yield* ExecutorTest.ExecutorTest).begun
    assert.deepEqual(run?.program.phases[0].argv, ["python3", "primes.py", "3"])
  }).pipe(Effect.provide(worker), Effect.runPromise))

test("primes says what is wrong with its arguments", () =>
  Effect.gen(function*() {
    const { settlement } = yield* settled({ upTo: 1 })
    assert.match(
      Outcome.describe(settlement?.outcome ?? Outcome.Outcome.cases.Lost.make({ attempts: 0 })),
      /from 2 to 1000000/
    )
  }).pipe(Effect.provide(worker), Effect.runPromise))
