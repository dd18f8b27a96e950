/** Real workers and what happens to them from outside: a runtime that fails, a job that is the end of each, repeats. */
import { join } from "node:path"
import { afterAll, afterEach, assert, beforeAll, describe, it } from "vitest"
import * as Jobs from "../sandbox/Jobs.ts"
import { RawClient } from "../stokeramqp/Place.ts"
import { Statuses } from "../storm/Statuses.ts"
import { Broker } from "../support/Broker.ts"
import { Tree } from "../support/Tree.ts"
import { until } from "../worker/until.ts"
import { type WorkerOptions, WorkerProcess } from "../worker/WorkerProcess.ts"

describe("a worker", () => {
  let broker: Broker
  let statuses: Statuses
  let raw: RawClient
  let state: string
  const workers: Array<WorkerProcess> = []
  const start = async (options: Partial<WorkerOptions> = {}) => {
    const worker = await WorkerProcess.start({ state, amqpUrl: broker.url, ...options })
    workers.push(worker)
    return worker
  }
  const codebench = (id: string, command: string) =>
    raw.channel.publish("jobs_ex", "jobs_rk", Buffer.from(JSON.stringify({ id, type: "command", command })))
  const stoker = (id: string, command: string, headers: Readonly<Record<string, unknown>> = {}) =>
    raw.send({ id, function: "command", args: { command } }, { headers })
  const endingsOf = (id: string) => statuses.endings.get(id) ?? []
  const outcomesOf = (id: string) => endingsOf(id).map(({ outcome }) => outcome)
  const runsOf = (id: string) => (statuses.words.get(id) ?? []).filter((word) => word === "running").length
  const deadLetters = async () => (await broker.queue("stoker.dead"))?.ready ?? 0

  beforeAll(async () => {
    broker = await Broker.acquire()
    statuses = await Statuses.connect(broker.url)
    raw = await RawClient.connect(broker.url)
    state = Jobs.stateDirectory()
  }, Broker.startMillis)

  afterEach(async () => {
    for (const worker of workers.splice(0)) await worker.drain()
    await raw.channel.purgeQueue("stoker.dead")
  })

  afterAll(async () => {
    await raw.close()
    await statuses.close()
    await broker.release()
    await WorkerProcess.sweep(state)
    Jobs.remove(state)
  })

  it(
    "whose runtime fails says why and what to do, tries again where that was asked for, and recovers with it",
    async () => {
      using tree = Tree.of({
        broken: "",
        crun: "#!/bin/sh\n[ -e \"${0%/crun}/broken\" ] && { echo 'out of luck' >&2; exit 1; }\nexec crun \"$@\"\n"
      })
      const worker = await start({ env: { STOKER_CRUN: join(tree.path, "crun") } })
      codebench("broken-1", "echo ok")
      await until("a first end", () => endingsOf("broken-1").length > 0)
      assert.match(outcomesOf("broken-1")[0] ?? "", /could not be run by oci: .*out of luck.*\. .*crun/)
      stoker("broken-2", "echo ok", { "x-stoker-retry-backoff": 2000, "x-stoker-max-attempts": 8 })
      await worker.sees("try 2 in 2000 ms")
      tree.remove("broken")
      await until("a second end", () => endingsOf("broken-2").length > 0)
      assert.deepStrictEqual(outcomesOf("broken-2"), ["succeeded"])
      codebench("broken-3", "echo ok")
      await until("a third end", () => endingsOf("broken-3").length > 0)
      assert.deepStrictEqual(outcomesOf("broken-3"), ["succeeded"])
      assert.strictEqual(await worker.drain(), 0)
    },
    120_000
  )

  it("that dies each time a job runs is not asked for ever: the job is Lost, told once, and kept", async () => {
    stoker("poison", "sleep 60", { "x-stoker-max-attempts": 2, "x-stoker-retry-backoff": 1 })
    let deaths = 0
    while (endingsOf("poison").length === 0) {
      const before = runsOf("poison")
      const worker = await start()
      await until("it runs, or is given up", () => runsOf("poison") > before || endingsOf("poison").length > 0)
      if (endingsOf("poison").length > 0) break
      await worker.kill()
      deaths += 1
      assert.isAtMost(deaths, 4)
    }
    assert.match(outcomesOf("poison")[0] ?? "", /was lost/)
    assert.strictEqual(new Set(endingsOf("poison").map(({ identity }) => identity)).size, 1)
    assert.strictEqual(deaths, 4, "two deaths for each of two tries")
    await until("a dead letter", async () => (await deadLetters()) === 1)
    await until("an empty queue", async () => {
      const queue = await broker.queue("stoker.jobs")
      return queue?.ready === 0 && queue.unacked === 0
    })
    codebench("after-poison", "echo ok")
    await until("the next job's end", () => endingsOf("after-poison").length > 0)
    assert.deepStrictEqual(outcomesOf("after-poison"), ["succeeded"])
  }, 120_000)

  it("that is asked for one id again and again runs it once, answers each, and refuses another program", async () => {
    await start()
    await start()
    for (const [send, dialect] of [[codebench, "codebench"], [stoker, "stoker"]] as const) {
      const id = `same-${dialect}`
      send(id, "sleep 0.5; echo ok")
      send(id, "sleep 0.5; echo ok")
      await until("an end", () => endingsOf(id).length > 0)
      send(id, "sleep 0.5; echo ok")
      send(id, "sleep 0.5; echo ok")
      await until("answers", () => endingsOf(id).length > 2)
      assert.strictEqual(runsOf(id), 1, `${dialect}: ${statuses.words.get(id)?.join(", ")}`)
      assert.strictEqual(new Set(endingsOf(id).map(({ identity }) => identity)).size, 1, dialect)
      const before = endingsOf(id).length
      send(id, "echo another")
      await until("a refusal", () => endingsOf(id).length > before)
      assert.match(outcomesOf(id).at(-1) ?? "", /rejected/)
    }
    await until("two dead letters", async () => (await deadLetters()) === 2)
  }, 60_000)
})
