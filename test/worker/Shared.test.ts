/** Two hosts, as far as one machine can be two: workers with state directories of their own and one journal. */
import { Effect, Redacted } from "effect"
import { afterAll, afterEach, assert, beforeAll, describe, it } from "vitest"
import { NAME } from "../../src/layers/intake/Embedded.ts"
import { requestHash } from "../../src/layers/intake/RequestHash.ts"
import { Journal } from "../../src/layers/journal/Journal.ts"
import * as JournalPostgres from "../../src/layers/journal/JournalPostgres.ts"
import { FunctionName, JobId, Owner } from "../../src/schemas/Ids.ts"
import { Stoker } from "../cli/Stoker.ts"
import * as Jobs from "../sandbox/Jobs.ts"
import { PostgresServer } from "../support/PostgresServer.ts"
import { until } from "./until.ts"
import { WorkerProcess } from "./WorkerProcess.ts"

describe("workers of two hosts with one journal", () => {
  let server: PostgresServer
  let states: ReadonlyArray<string> = []
  const workers: Array<WorkerProcess> = []
  const stoker = new Stoker()

  const withJournal = <A, E>(use: (journal: Journal["Service"]) => Effect.Effect<A, E>): Promise<A> =>
    Effect.runPromise(
      Journal.use(use).pipe(Effect.provide(JournalPostgres.layer({ url: Redacted.make(server.url()) })))
    )
  const jobs = () => withJournal((journal) => journal.list({ limit: 1000 }))
  const start = async (state: string) => {
    const worker = await WorkerProcess.start({ state, leaseMs: 2000, env: { STOKER_JOURNAL: server.url() } })
    workers.push(worker)
    return worker
  }

  beforeAll(async () => {
    server = await PostgresServer.start()
    states = [Jobs.stateDirectory(), Jobs.stateDirectory()]
  })
  afterEach(async () => {
    for (const worker of workers.splice(0)) await worker.kill()
  })
  afterAll(async () => {
    for (const state of states) {
      await WorkerProcess.sweep(state)
      Jobs.remove(state)
    }
    await stoker.dispose()
    server.dispose()
  })

  it("one host dies with jobs running: the other ends them, and every job has one outcome", async () => {
    const ids = Array.from({ length: 12 }, (_, number) => `job-${number}`)
    await withJournal((journal) =>
      Effect.forEach(ids, (id) => {
        const job = {
          id: JobId.make(id),
          owner: Owner.make("local"),
          intake: NAME,
          function: FunctionName.make("command"),
          args: { argv: ["sh", "-c", "sleep 1; echo over"] },
          limits: {}
        }
        return journal.submit({ job, hash: requestHash(job), reply: null })
      })
    )
    const [first = "", second = ""] = states
    const [dying] = [await start(first), await start(second)]
    const holders = () => withJournal((journal) => journal.holders)
    await until("both run something", async () => (await holders()).length === 2)
    // Its host goes with it: nobody looks after its directory, and nobody can ask for its lock.
    await dying?.kill()
    await until("all ended", async () => (await jobs()).every(({ state }) => state === "ended"), 60_000)
    const records = await jobs()
    assert.strictEqual(records.length, ids.length)
    for (const { attempt, settlement } of records) {
      assert.deepStrictEqual(settlement?.outcome, { _tag: "Exited", phase: "run", code: 0 })
      assert.isAtMost(attempt, 2)
    }
    assert.isAbove(records.filter(({ attempt }) => attempt === 2).length, 0)
    assert.deepStrictEqual(await holders(), [])
    assert.deepStrictEqual(await withJournal((journal) => journal.owed(10)), [])
  }, 120_000)

  it("the command line reads and writes it from a third place, and says where output lies", async () => {
    const [first = ""] = states
    await start(first)
    const env = { STOKER_JOURNAL: server.url() }
    const waited = await stoker.run(["submit", "--wait", "--", "sh", "-c", "echo far; exit 3"], { env })
    assert.deepStrictEqual({ code: waited.code, stdout: waited.stdout }, { code: 3, stdout: "" })
    assert.match(waited.stderr, /its output lies on the host of its worker/)
    const id = /submitted (\S+)/.exec(waited.stderr)?.[1] ?? ""
    const status = await stoker.run(["status", id], { env })
    assert.match(status.stdout, new RegExp(`embedded/local/${id}[^]*exit`))
    assert.match((await stoker.run(["list", "--only", "ended"], { env })).stdout, new RegExp(id))
    const logs = await stoker.run(["logs", id], { env })
    assert.match(logs.stderr, /has no output here[^]*worker \S+: ask there/)
    const wrong = await stoker.run(["list"], { env: { STOKER_JOURNAL: server.url("wrong") } })
    assert.match(wrong.stderr, /does not let this user in[^]*Correct user and password/)
    assert.notInclude(wrong.stderr, "wrong@")
  }, 60_000)
})
