import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { afterAll, afterEach, assert, beforeAll, describe, it } from "vitest"
import { OldClient } from "../codebench/OldClient.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import { Broker } from "../support/Broker.ts"
import { until } from "./until.ts"
import { WorkerProcess } from "./WorkerProcess.ts"

const outcomesOf = (state: string, id: string) => {
  const database = new DatabaseSync(join(state, "journal.sqlite"), { readOnly: true })
  try {
    return database.prepare("select state, settlement from jobs where id = ?").all(id)
  } finally {
    database.close()
  }
}

const first = <A>(values: ReadonlyArray<A>) => [...new Set(values)]

describe("a worker with a broker", () => {
  let broker: Broker
  let client: OldClient
  let state: string
  let nothing: ReturnType<typeof Jobs.held>
  const workers: Array<WorkerProcess> = []
  const start = async (options: { readonly slots?: number; readonly leaseMs?: number } = {}) => {
    const worker = await WorkerProcess.start({ state, amqpUrl: broker.url, ...options })
    workers.push(worker)
    return worker
  }
  const statusesOf = (id: string) => client.statuses.filter((status) => status.id === id)

  beforeAll(async () => {
    broker = await Broker.acquire()
    client = await OldClient.connect(broker.url)
    state = Jobs.stateDirectory()
    nothing = Jobs.held(state)
    await client.declareJobs()
    await client.declareStatusExchange()
    await client.followStatuses()
  }, Broker.startMillis)

  afterEach(async () => {
    for (const worker of workers.splice(0)) await worker.kill()
  })

  afterAll(async () => {
    await client.close()
    await broker.release()
    await WorkerProcess.sweep(state)
    Jobs.remove(state)
  })

  it("serves a CodeBench client: received, running, done, with output, time and memory", async () => {
    await start()
    client.submit({ id: "c-1", language: "c", code: "#include <stdio.h>\nint main(){puts(\"hi\");return 0;}" })
    client.submit({
      id: "py-1",
      language: "python",
      code: "import sys\nprint('out')\nsys.stderr.write('err')\nsys.exit(3)"
    })
    client.submit({ id: "bad-1", language: "c", code: "int main( {" })
    await until("three ends", () => ["c-1", "py-1", "bad-1"].every((id) => statusesOf(id).length >= 3))
    assert.deepStrictEqual(statusesOf("c-1").map(({ status }) => status), ["received", "running", "done"])
    const [, , done] = statusesOf("c-1")
    assert.strictEqual(done?.stdout, "hi\n")
    assert.isAbove(done?.exec_duration ?? 0, 100)
    assert.isAbove(done?.mem_usage ?? 0, 100)
    assert.deepStrictEqual(statusesOf("py-1").map(({ status }) => status), ["received", "running", "failed"])
    assert.strictEqual(statusesOf("py-1")[2]?.stdout, "out\n")
    assert.strictEqual(statusesOf("py-1")[2]?.stderr, "err")
    assert.strictEqual(statusesOf("py-1")[2]?.error, "exit status 3")
    assert.include(statusesOf("bad-1")[2]?.stderr, "error:")
    assert.strictEqual(statusesOf("bad-1")[2]?.message, "Failed to compile")
  }, 60_000)

  it(
    "killed with ten jobs running: nothing of them alive after a second, and each ends once, told, with nothing left",
    async () => {
      const worker = await start({ slots: 10 })
      const ids = Array.from({ length: 10 }, (_, n) => `k-${n}`)
      for (const id of ids) {
        client.submit({
          id,
          language: "python",
          code: "import time\nprint('begun', flush=True)\ntime.sleep(2)\nprint('over')"
        })
      }
      await until("ten running", () => ids.every((id) => statusesOf(id).some(({ status }) => status === "running")))
      assert.isAbove(Jobs.held(state).ledger.length, 9)
      await worker.kill()
      await until("no process is left", () => Jobs.held(state).processes === 0, 1000)

      await start({ slots: 10 })
      await until("ten ends", () => ids.every((id) => statusesOf(id).some(({ status }) => status === "done")), 60_000)
      for (const id of ids) {
        const told = statusesOf(id)
        assert.deepStrictEqual(first(told.map(({ status }) => status)), ["received", "running", "done"], id)
        assert.strictEqual(told.at(-1)?.stdout, "begun\nover\n", id)
        assert.strictEqual(outcomesOf(state, id).length, 1, id)
      }
      await until("acked", async () => (await broker.queue("jobs_q"))?.unacked === 0)
      for (const each of workers.splice(0)) await each.drain()
      assert.deepStrictEqual(Jobs.held(state), nothing)
    },
    120_000
  )

  it("drains on SIGTERM: running jobs end, nothing more is taken, exit 0, nothing left", async () => {
    const worker = await start({ slots: 2 })
    for (const id of ["d-1", "d-2"]) {
      client.submit({ id, language: "python", code: "import time\ntime.sleep(1)\nprint('ok')" })
    }
    await until(
      "two running",
      () => ["d-1", "d-2"].every((id) => statusesOf(id).some(({ status }) => status === "running"))
    )
    const code = await worker.drain()
    assert.strictEqual(code, 0)
    for (const id of ["d-1", "d-2"]) assert.strictEqual(statusesOf(id).at(-1)?.status, "done")
    const { ledger, processes } = Jobs.held(state)
    assert.strictEqual(processes, 0)
    assert.deepStrictEqual(ledger, [])
  }, 60_000)

  it("two workers on one host: the death of one does not touch the other's jobs", async () => {
    const one = await start({ slots: 2 })
    const two = await start({ slots: 2 })
    const ids = Array.from({ length: 4 }, (_, n) => `two-${n}`)
    for (const id of ids) client.submit({ id, language: "python", code: "import time\ntime.sleep(2)\nprint('ok')" })
    await until("four running", () => ids.every((id) => statusesOf(id).some(({ status }) => status === "running")))
    await one.kill()
    await start({ slots: 2 })
    await until("four ends", () => ids.every((id) => statusesOf(id).some(({ status }) => status === "done")), 60_000)
    // The survivor's two ran once, the dead one's two twice.
    const runs = ids.map((id) => statusesOf(id).filter(({ status }) => status === "running").length)
    assert.strictEqual(runs.reduce((sum, n) => sum + n, 0), 6, JSON.stringify(runs))
    assert.strictEqual(await two.drain(), 0)
  }, 120_000)

  it("goes on through cut connections: every job told, none run twice", async () => {
    await start({ slots: 2 })
    const ids = Array.from({ length: 12 }, (_, n) => `cut-${n}`)
    for (const id of ids) client.submit({ id, language: "python", code: "import time\ntime.sleep(0.2)\nprint('ok')" })
    await until(
      "some ended",
      () => ids.filter((id) => statusesOf(id).some(({ status }) => status === "done")).length > 2
    )
    await client.close()
    await broker.cutAllConnections()
    client = await OldClient.connect(broker.url)
    await client.followStatuses()
    const settled = () => ids.map((id) => outcomesOf(state, id)).filter(([row]) => row?.["state"] === "ended").length
    await until("all settled", () => settled() === ids.length, 60_000)
    await until("all acked", async () => {
      const queue = await broker.queue("jobs_q")
      return queue?.unacked === 0 && queue.ready === 0
    })
    for (const id of ids) {
      const [row] = outcomesOf(state, id)
      assert.strictEqual(JSON.parse(String(row?.["settlement"])).attempt, 1, id)
    }
  }, 120_000)
})
