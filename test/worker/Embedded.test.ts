/** The embedded queue of a real worker process, which is killed in the middle of it. */
import { Effect } from "effect"
import { join } from "node:path"
import { afterAll, afterEach, assert, beforeAll, describe, it } from "vitest"
import { NAME } from "../../src/layers/intake/Embedded.ts"
import { requestHash } from "../../src/layers/intake/RequestHash.ts"
import { type JobRecord, Journal } from "../../src/layers/journal/Journal.ts"
import * as JournalSqlite from "../../src/layers/journal/JournalSqlite.ts"
import { FunctionName, JobId, Owner } from "../../src/schemas/Ids.ts"
import { standardTerms, type Terms } from "../../src/schemas/Terms.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import { until } from "./until.ts"
import { WorkerProcess } from "./WorkerProcess.ts"

describe("a worker's embedded queue", () => {
  let state: string
  let nothing: ReturnType<typeof Jobs.held>
  const workers: Array<WorkerProcess> = []
  const start = async (slots: number) => {
    const worker = await WorkerProcess.start({ state, slots })
    workers.push(worker)
    return worker
  }
  const withJournal = <A, E>(use: (journal: Journal["Service"]) => Effect.Effect<A, E>): Promise<A> =>
    Effect.runPromise(
      Journal.use(use).pipe(Effect.provide(JournalSqlite.layer({ filename: join(state, "journal.sqlite") })))
    )
  const submit = (id: string, argv: ReadonlyArray<string>, terms: Partial<Terms> = {}) =>
    withJournal((journal) => {
      const job = {
        id: JobId.make(id),
        owner: Owner.make("local"),
        intake: NAME,
        function: FunctionName.make("command"),
        args: { argv },
        limits: {}
      }
      return journal.submit({ job, hash: requestHash(job), reply: null }, { terms: { ...standardTerms, ...terms } })
    })
  const records = async (): Promise<ReadonlyMap<string, JobRecord>> => {
    const all = await withJournal((journal) => journal.list({ limit: 1000 }))
    return new Map(all.map((record) => [record.request.job.id, record]))
  }
  const ended = async (ids: ReadonlyArray<string>) => {
    const now = await records()
    return ids.every((id) => now.get(id)?.state === "ended")
  }

  beforeAll(() => {
    state = Jobs.stateDirectory()
    nothing = Jobs.held(state)
  })
  afterEach(async () => {
    for (const worker of workers.splice(0)) await worker.kill()
  })
  afterAll(async () => {
    await WorkerProcess.sweep(state)
    Jobs.remove(state)
  })

  it("killed twice with running, delayed and retried jobs: each ends once, and what gave up is kept", async () => {
    const nowMs = Date.now()
    const retry = { on: ["Exited" as const], maxAttempts: 3, backoffMs: 1500 }
    const running = ["run-0", "run-1"]
    for (const id of running) await submit(id, ["sh", "-c", "echo begun; sleep 2; echo over"], { priority: "high" })
    await submit("delayed", ["true"], { notBeforeMs: nowMs + 12_000 })
    await submit("gives-up", ["sh", "-c", "exit 3"], { retry, priority: "high" })
    await submit("expires", ["true"], { priority: "low", notBeforeMs: nowMs + 2000, expiresAtMs: nowMs + 2001 })
    const low = Array.from({ length: 8 }, (_, n) => `low-${n}`)
    for (const id of low) await submit(id, ["true"], { priority: "low" })
    const all = [...running, "delayed", "gives-up", "expires", ...low]

    // Once with the high ones running, once where a failed try waits for its next one.
    const first = await start(3)
    await until("both running", async () => {
      const now = await records()
      return running.every((id) => now.get(id)?.state === "running")
    })
    await first.kill()
    await until("no process is left", () => Jobs.held(state).processes === 0, 1000)
    const second = await start(3)
    await until("a try that waits", async () => {
      const record = (await records()).get("gives-up")
      return record?.state === "queued" && (record.tries ?? 1) > 1
    })
    await second.kill()
    const third = await start(3)
    await until("all ends", () => ended(all), 60_000)

    const now = await records()
    assert.strictEqual(now.size, all.length)
    for (const id of [...running, "delayed", ...low]) {
      assert.deepStrictEqual(now.get(id)?.settlement?.outcome, { _tag: "Exited", phase: "run", code: 0 }, id)
    }
    assert.isAtLeast(now.get("delayed")?.settlement?.startedAtMs ?? 0, nowMs + 12_000)
    assert.deepStrictEqual(now.get("gives-up")?.settlement?.outcome, { _tag: "Exited", phase: "run", code: 3 })
    assert.strictEqual(now.get("gives-up")?.tries, 3)
    assert.strictEqual(now.get("expires")?.settlement?.outcome._tag, "Rejected")
    const { letters } = await withJournal((journal) => journal.dead(10))
    assert.deepStrictEqual(
      letters.map(({ reason, request: { job } }) => `${job.id}: ${reason}`).toSorted(),
      ["expires: expired in the queue", "gives-up: gave up after 3 tries: exited with status 3"]
    )
    assert.strictEqual(await third.drain(), 0)
    assert.deepStrictEqual(Jobs.held(state), nothing)
  }, 120_000)

  it("takes nothing without the reserve on its disk, and goes on when there is room", async () => {
    await submit("waits", ["true"])
    const full = await WorkerProcess.start({ state, diskReserveBytes: 2 ** 50 })
    workers.push(full)
    await full.sees("no new jobs are taken")
    await new Promise((resolve) => setTimeout(resolve, 500))
    assert.strictEqual((await records()).get("waits")?.state, "queued")
    await full.drain()
    await start(1)
    await until("its end", () => ended(["waits"]))
  }, 60_000)
})
