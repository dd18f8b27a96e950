import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { INTAKE } from "../../src/layers/api/JobApi.ts"
import * as RecentJobs from "../../src/layers/api/RecentJobs.ts"
import type { JobRecord } from "../../src/layers/journal/Journal.ts"
import { FunctionName, InstanceId, JobId, type JobKey } from "../../src/schemas/Ids.ts"
import type { JobState } from "../../src/schemas/Job.ts"
import { key as keyOf } from "../log/Model.ts"

const key: JobKey = { ...keyOf("a"), intake: INTAKE }
const me = InstanceId.make("me")

setFlagsFromString("--expose-gc")
const collect = runInNewContext("gc") as () => void
/** Bytes of the heap that something still refers to. */
const used = () => {
  collect()
  return process.memoryUsage().heapUsed
}

const recordOf = (state: JobState, instance = "me"): JobRecord => ({
  request: { job: { ...key, function: FunctionName.make("say"), args: {}, limits: {} }, hash: "", reply: null },
  state,
  attempt: 1,
  instance: InstanceId.make(instance),
  receivedAtMs: 0
})

/** Counts how often it was read. */
const reader = (record: () => JobRecord) => {
  let times = 0
  return { read: Effect.sync(() => (times += 1, record())), times: () => times }
}

describe("what was read of a job just now", () => {
  it.effect("is told again for a second, of jobs that this worker hears of", () =>
    Effect.gen(function*() {
      const recent = RecentJobs.make(me)
      const ended = reader(() => recordOf("ended", "other"))
      yield* recent.get(key, ended.read)
      yield* recent.get(key, ended.read)
      assert.strictEqual(ended.times(), 1)
      yield* TestClock.adjust(1000)
      yield* recent.get(key, ended.read)
      assert.strictEqual(ended.times(), 2)
    }))

  it.effect("is read each time while it is queued, or runs elsewhere", () =>
    Effect.gen(function*() {
      for (const record of [recordOf("queued"), recordOf("running", "other")]) {
        const recent = RecentJobs.make(me)
        const waiting = reader(() => record)
        yield* recent.get(key, waiting.read)
        yield* recent.get(key, waiting.read)
        assert.strictEqual(waiting.times(), 2)
      }
    }))

  it.effect("is no memory of what is not there, however many are asked for", () =>
    Effect.gen(function*() {
      const recent = RecentJobs.make(me)
      const look = (id: string) => Effect.exit(recent.get({ ...key, id: JobId.make(id) }, Effect.fail("unknown")))
      const long = "x".repeat(100)
      for (let at = 0; at < 1000; at += 1) yield* look(`${at}-${long}`)
      const before = used()
      for (let at = 0; at < 100_000; at += 1) yield* look(`${at}-${long}`)
      assert.isBelow(used() - before, 5_000_000)
    }))

  it.effect("is forgotten when something happens, also while it is being read", () =>
    Effect.gen(function*() {
      const recent = RecentJobs.make(me)
      let state: JobState = "running"
      const running = reader(() => recordOf(state))
      yield* recent.get(key, running.read)
      state = "ended"
      recent.forget(key)
      assert.strictEqual((yield* recent.get(key, running.read)).state, "ended")
      const gate = yield* Deferred.make<void>()
      const other = RecentJobs.make(me)
      const slow = yield* Effect.forkChild(
        other.get(key, Effect.as(Deferred.await(gate), recordOf("running"))),
        { startImmediately: true }
      )
      other.forget(key)
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.join(slow)
      assert.strictEqual((yield* other.get(key, running.read)).state, "ended")
    }))
})
