import { closeSync, openSync, rmSync, writeSync } from "node:fs"
import { join } from "node:path"
import { afterAll, afterEach, assert, beforeAll, describe, it } from "vitest"
import { OldClient } from "../codebench/OldClient.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import { Broker, type ExclusiveBroker } from "../support/Broker.ts"
import { until } from "./until.ts"
import { type WorkerOptions, WorkerProcess } from "./WorkerProcess.ts"

const python = (id: string, code: string) => ({ id, language: "python", code })

/** Writes until there is no room for another byte. */
const fill = (path: string) => {
  const file = openSync(path, "w")
  try {
    for (const size of [1024 * 1024, 4096, 1]) {
      const zeros = Buffer.alloc(size)
      try {
        for (;;) writeSync(file, zeros)
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error
      }
    }
  } finally {
    closeSync(file)
  }
}

describe("a worker goes on", () => {
  let broker: ExclusiveBroker
  let client: OldClient
  let state: string
  const workers: Array<WorkerProcess> = []
  const start = async (options: Partial<WorkerOptions> = {}) => {
    const worker = await WorkerProcess.start({ state, amqpUrl: broker.url, ...options })
    workers.push(worker)
    return worker
  }
  const connect = async () => {
    client = await OldClient.connect(broker.url)
    await client.declareJobs()
    await client.declareStatusExchange()
    await client.followStatuses()
  }
  const statusesOf = (id: string) => client.statuses.filter((status) => status.id === id)
  const ended = (id: string) => statusesOf(id).find(({ status }) => status === "done" || status === "failed")

  beforeAll(async () => {
    broker = await Broker.acquireExclusive()
    state = Jobs.stateDirectory()
    await connect()
  }, Broker.startMillis)

  afterEach(async () => {
    for (const worker of workers.splice(0)) await worker.drain()
  })

  afterAll(async () => {
    await client.close()
    await broker.release()
    await WorkerProcess.sweep(state)
    Jobs.remove(state)
  })

  it("when the broker is not there at its start: it says so and serves as soon as the broker is", async () => {
    await client.close()
    await broker.kill()
    const worker = await start({ brokerAway: true })
    await worker.sees("AMQP_URL")
    await broker.start()
    await connect()
    client.submit(python("late-1", "print('ok')"))
    await until("the job's end", () => ended("late-1") !== undefined, 60_000)
    assert.strictEqual(ended("late-1")?.stdout, "ok\n")
  }, 120_000)

  it("when the broker is restarted while jobs run: each ends once and is told", async () => {
    await start({ slots: 4 })
    const ids = Array.from({ length: 8 }, (_, n) => `restart-${n}`)
    for (const id of ids) client.submit(python(id, "import time\ntime.sleep(3)\nprint('ok')"))
    await until(
      "four running",
      () => ids.filter((id) => statusesOf(id).some(({ status }) => status === "running")).length === 4
    )
    await client.close()
    await broker.restart()
    await connect()
    // Statuses told while nobody listened are gone, as ever with a non-durable exchange: asking again is answered.
    await until("an empty queue", async () => {
      const queue = await broker.queue("jobs_q")
      return queue?.ready === 0 && queue.unacked === 0
    }, 90_000)
    client.statuses.length = 0
    for (const id of ids) client.submit(python(id, "import time\ntime.sleep(3)\nprint('ok')"))
    await until("all answers", () => ids.every((id) => ended(id) !== undefined), 60_000)
    for (const id of ids) assert.strictEqual(ended(id)?.stdout, "ok\n")
  }, 180_000)

  it("when its disk is full: it says so, waits, and every job ends once there is room", async () => {
    const worker = await start({ stateBytes: 16 * 1024 * 1024 })
    client.submit(python("roomy", "print('ok')"))
    await until("a first end", () => ended("roomy") !== undefined)
    // The worker's own view of its state directory: nobody else sees that mount.
    const filler = join(`/proc/${worker.pid}/root`, state, "filler")
    fill(filler)
    const ids = ["full-1", "full-2", "full-3"]
    for (const id of ids) client.submit(python(id, "print('ok')"))
    await worker.sees("no space is left", 60_000)
    assert.isTrue(ids.every((id) => ended(id) === undefined))
    rmSync(filler)
    await until("three ends", () => ids.every((id) => ended(id) !== undefined), 60_000)
    for (const id of ids) assert.strictEqual(ended(id)?.stdout, "ok\n", id)
    assert.strictEqual(await worker.drain(), 0)
  }, 120_000)

  it("when crun is missing: every job is told what to install, the worker stands", async () => {
    await start({ env: { STOKER_CRUN: "/nonexistent/crun" } })
    client.submit(python("nocrun", "print(1)"))
    await until("an end", () => ended("nocrun") !== undefined)
    assert.strictEqual(ended("nocrun")?.status, "failed")
    assert.include(ended("nocrun")?.error, "/nonexistent/crun")
    assert.include(ended("nocrun")?.error, "apt-get install crun")
  }, 60_000)

  it("through bad messages: they are kept with a reason, and good ones between them run", async () => {
    await start()
    client.submitReadme(Buffer.from("{ not json"))
    client.submit({ id: "../../etc", language: "c", code: "int main(){}" })
    client.submit({ id: "no-code", language: "c" })
    client.submit({ id: "what", language: "cobol", code: "x" })
    client.submit({ id: "empty", language: "c", code: "" })
    client.submit({ id: "nul", language: "c", code: "int main(){}\u0000" })
    client.submit({ id: 7, language: "c", code: "int main(){}" })
    client.submit({ id: "huge", language: "python", code: `#${"x".repeat(20 * 1024 * 1024)}` })
    client.submit(python("good", "print('ok')"))
    await until("the good one", () => ended("good")?.stdout === "ok\n", 60_000)
    await until("eight dead letters", async () => ((await broker.queue("stoker.dead"))?.ready ?? 0) >= 8, 60_000)
    for (const id of ["no-code", "what", "empty", "nul", "huge"]) {
      assert.strictEqual(ended(id)?.status, "failed", id)
      assert.notStrictEqual(ended(id)?.error, "", id)
    }
  }, 120_000)
})
