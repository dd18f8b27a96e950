/** Real workers on a broker in trouble. More of it: test/worker/Faults.test.ts, and without workers test/amqp. */
import { afterAll, afterEach, assert, beforeAll, beforeEach, describe, it } from "vitest"
import { OldClient } from "../codebench/OldClient.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import { Broker, type ExclusiveBroker } from "../support/Broker.ts"
import { until } from "../worker/until.ts"
import { WorkerProcess } from "../worker/WorkerProcess.ts"

describe("a worker whose broker", () => {
  let broker: ExclusiveBroker
  let client: OldClient
  let state: string
  let worker: WorkerProcess
  const connect = async () => {
    client = await OldClient.connect(broker.url)
    await client.declareJobs()
    await client.declareStatusExchange()
    await client.followStatuses()
  }
  const wordsOf = (id: string) => client.statuses.filter((status) => status.id === id).map(({ status }) => status)

  beforeAll(async () => {
    broker = await Broker.acquireExclusive()
    state = Jobs.stateDirectory()
  }, Broker.startMillis)

  beforeEach(async () => {
    await connect()
    worker = await WorkerProcess.start({ state, amqpUrl: broker.url, slots: 3 })
  })

  afterEach(async () => {
    await client.close()
    assert.strictEqual(await worker.drain(), 0)
    assert.deepStrictEqual(Jobs.held(state).ledger, [])
  })

  afterAll(async () => {
    await broker.release()
    await WorkerProcess.sweep(state)
    Jobs.remove(state)
  })

  it("has a memory alarm: what runs goes on, nothing is told meanwhile, then all of it in order and once", async () => {
    const ids = ["a", "b", "c"].map((name) => `alarm-${name}`)
    for (const id of ids) client.submit({ id, type: "command", command: "sleep 1; echo ok" })
    await until("three running", () => ids.every((id) => wordsOf(id).includes("running")))
    await broker.block()
    try {
      // Their programs end, and their sandboxes go, while nobody can be told.
      await until("three ends nobody hears of", () => worker.output.split("job succeeded").length > 3)
      assert.deepStrictEqual(ids.flatMap(wordsOf).filter((word) => word === "done"), [])
      assert.strictEqual((await broker.queue("jobs_q"))?.unacked, 3)
    } finally {
      await broker.unblock()
    }
    await until("three ends", () => ids.every((id) => wordsOf(id).includes("done")))
    for (const id of ids) assert.deepStrictEqual(wordsOf(id), ["received", "running", "done"], id)
    await until("an empty queue", async () => (await broker.queue("jobs_q"))?.unacked === 0)
  }, 60_000)

  it("comes back without its disk: its queues are declared again, and jobs go on", async () => {
    client.submit({ id: "lost-1", type: "command", command: "sleep 1; echo ok" })
    await until("it runs", () => wordsOf("lost-1").includes("running"))
    await client.close()
    await broker.startEmpty()
    // Not declared by us: the worker does what an operator would otherwise have to do.
    for (const name of ["jobs_q", "stoker.jobs", "stoker.jobs.high", "stoker.jobs.low"]) {
      await until(`${name} is served`, async () => ((await broker.queue(name))?.consumers ?? 0) > 0, 60_000)
    }
    await connect()
    client.submit({ id: "lost-1", type: "command", command: "sleep 1; echo ok" })
    client.submit({ id: "lost-2", type: "command", command: "echo ok" })
    await until("both ends", () => wordsOf("lost-1").includes("done") && wordsOf("lost-2").includes("done"), 60_000)
    // The first had ended while the broker was away: it is answered from the journal, not run again.
    const [first] = client.statuses.filter(({ id, status }) => id === "lost-1" && status === "done")
    assert.strictEqual(first?.stdout, "ok\n")
    assert.strictEqual(worker.output.split("job succeeded").length - 1, 2)
  }, 120_000)
})
