/** Three workers of one state directory are replaced one after the other while jobs of both dialects come. */
import { mkdirSync } from "node:fs"
import { join } from "node:path"
import { setTimeout as pause } from "node:timers/promises"
import { afterAll, assert, beforeAll, describe, it } from "vitest"
import * as Jobs from "../sandbox/Jobs.ts"
import { Statuses } from "../storm/Statuses.ts"
import { makeJobs } from "../storm/StormJobs.ts"
import { Broker } from "../support/Broker.ts"
import { randomOf } from "../support/Random.ts"
import { until } from "../worker/until.ts"
import { WorkerProcess } from "../worker/WorkerProcess.ts"

/** Words that follow each other unchanged are one: given back before it began, a job is received again. */
const steps = (words: ReadonlyArray<string>) => words.filter((word, n) => word !== words[n - 1])

describe("a rolling restart", () => {
  let broker: Broker
  let state: string
  let nothing: ReturnType<typeof Jobs.held>

  beforeAll(async () => {
    broker = await Broker.acquire()
    state = join(Jobs.stateDirectory(), "state")
    mkdirSync(state, { mode: 0o700 })
    nothing = Jobs.held(state)
  }, Broker.startMillis)

  afterAll(async () => {
    await broker.release()
    Jobs.remove(join(state, ".."))
  })

  it("of three workers under load loses no job, runs none twice, and tells each in order", async () => {
    const start = () => WorkerProcess.start({ state, amqpUrl: broker.url, slots: 2 })
    const statuses = await Statuses.connect(broker.url)
    const workers = [await start(), await start(), await start()]
    const jobs = makeJobs(120, 12_000, randomOf(1), "roll")
    try {
      const coming = (async () => {
        const began = performance.now()
        for (const job of jobs.toSorted((a, b) => a.atMs - b.atMs)) {
          await pause(Math.max(0, job.atMs - (performance.now() - began)))
          statuses.send(job)
        }
      })()
      for (let turn = 0; turn < 6; turn++) {
        await pause(500)
        const old = workers[turn % 3]
        workers[turn % 3] = await start()
        Jobs.held(state)
        assert.strictEqual(await old?.drain(), 0)
      }
      await coming
      await until("every end", () => jobs.every(({ id }) => statuses.endings.has(id)), 60_000)
      assert.deepStrictEqual(statuses.faults(jobs), [])
      assert.deepStrictEqual(statuses.rivals(jobs), [])
      assert.deepStrictEqual(statuses.tally(jobs), { own: jobs.length, ours: 0 })
      for (const { id } of jobs) {
        const words = statuses.words.get(id) ?? []
        assert.deepStrictEqual(steps(words).slice(0, 2), ["received", "running"], id)
        assert.strictEqual(steps(words).length, 3, `${id}: ${words.join(", ")}`)
        assert.strictEqual(words.filter((word) => word === "running").length, 1, id)
      }
    } finally {
      for (const worker of workers) assert.strictEqual(await worker.drain(), 0)
      await statuses.close()
    }
    assert.deepStrictEqual(Jobs.held(state), nothing)
  }, 120_000)
})
