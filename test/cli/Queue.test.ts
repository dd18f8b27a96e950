import { afterAll, assert, describe, it } from "@effect/vitest"
import { join } from "node:path"
import { DatabaseSync } from "node:sqlite"
import { Stoker } from "./Stoker.ts"

const stoker = new Stoker()
afterAll(() => stoker.dispose())

const submit = async (...args: ReadonlyArray<string>) => {
  const { code, stderr, stdout } = await stoker.run(["submit", ...args, "--", "true"])
  assert.strictEqual(code, 0, stderr)
  return stdout.trim()
}

const byHand = (sql: string) => {
  const database = new DatabaseSync(join(stoker.state, "journal.sqlite"))
  database.exec(sql)
  database.close()
}

describe("the embedded queue on the command line", () => {
  it("says where there is nothing to look at", async () => {
    const { code, stderr } = await stoker.run(["dead", "list"])
    assert.match(stderr, /there is no broker to ask, and no job has run yet[^]*AMQP_URL[^]*--state/)
    assert.strictEqual(code, 1)
  })

  it("takes terms, and shows those that matter", async () => {
    const before = Date.now()
    const id = await submit("--priority", "high", "--delay", "1h", "--ttl", "2h", "--tries", "5")
    const { stdout } = await stoker.run(["status", id])
    assert.match(stdout, /state +queued[^]*priority +high[^]*begins at +20[^]*expires at +20/)
    assert.notInclude(stdout, "try ")
    assert.match((await stoker.run(["list"])).stdout, /queued.*priority high, begins at 20/)
    const { terms } = JSON.parse((await stoker.run(["status", id, "--json"])).stdout)
    assert.deepInclude(terms, {
      priority: "high",
      retry: { on: ["SandboxFailed", "Lost"], maxAttempts: 5, backoffMs: 1000 }
    })
    assert.isAtLeast(terms.notBeforeMs, before + 3_600_000)
    assert.isBelow(terms.notBeforeMs, Date.now() + 3_600_001)
    assert.strictEqual(terms.expiresAtMs - terms.notBeforeMs, 3_600_000)
    assert.notMatch((await stoker.run(["status", await submit()])).stdout, /priority|begins|expires/)
  })

  it("refuses terms that make no sense, and those that CodeBench messages cannot say", async () => {
    const short = await stoker.run(["submit", "--delay", "2m", "--ttl", "1m", "--", "true"])
    assert.match(short.stderr, /would expire before it may begin[^]*longer than --delay/)
    assert.strictEqual(short.code, 1)
    assert.match((await stoker.run(["submit", "--tries", "0", "--", "true"])).stderr, /tries[^]*1 to 100/)
    const amqp = await stoker.run(["submit", "--priority", "low", "--tries", "2", "--", "true"], {
      env: { AMQP_URL: "amqp://127.0.0.1:1" }
    })
    assert.match(amqp.stderr, /cannot say --priority, --tries[^]*embedded queue/)
    assert.strictEqual(amqp.code, 1)
  })

  it("refuses a job when the queue is full, and names the limit", async () => {
    byHand("update queue_length set rows = rows + 1000000")
    const { code, stderr, stdout } = await stoker.run(["submit", "--", "true"])
    assert.match(stderr, /full \(queueMaximum: 1000000\)/)
    assert.deepStrictEqual({ code, stdout }, { code: 125, stdout: "" })
    byHand("update queue_length set rows = rows - 1000000")
    await submit()
  })

  it("keeps what was rejected: list, show, retry, which runs it again, and drop", async () => {
    const worker = stoker.start(["worker", "--driver", "process", "--warm", "0"])
    await worker.said("stderr", "\"consuming\"")
    const rejected = await stoker.run(["submit", "--wait", "--class", "nowhere", "--", "true"])
    assert.match(rejected.stderr, /no sandbox class nowhere/)
    assert.strictEqual(rejected.code, 126)
    const { letters, total } = JSON.parse((await stoker.run(["dead", "list", "--json"])).stdout)
    assert.strictEqual(total, 1)
    const [{ id, messageId, ...letter }] = letters
    assert.deepInclude(letter, { queue: "embedded", reason: "there is no sandbox class nowhere", isCut: false })
    assert.strictEqual(id, `embedded/local/${messageId}`)
    assert.match((await stoker.run(["dead", "list"])).stdout, new RegExp(`LETTER[^]*${id} .*embedded`))
    assert.match((await stoker.run(["dead", "show", messageId])).stdout, /remedy +Use one of: process[^]*"nowhere"/)

    const before = JSON.parse((await stoker.run(["status", messageId, "--json"])).stdout)
    assert.match((await stoker.run(["dead", "retry", id])).stderr, /1 letter sent again/)
    // It is rejected again, but later: it was not answered with what it came to before.
    let after = before
    while (after.settlement?.endedAtMs === before.settlement.endedAtMs || after.settlement === undefined) {
      after = JSON.parse((await stoker.run(["status", messageId, "--json"])).stdout)
    }
    assert.isAbove(after.receivedAtMs, before.receivedAtMs)
    assert.match((await stoker.run(["dead", "drop", "--all"])).stderr, /1 letter thrown away/)
    assert.match((await stoker.run(["dead", "list"])).stderr, /there are no dead letters/)
    const missing = await stoker.run(["dead", "retry", id])
    assert.match(missing.stderr, /there is no dead letter/)
    assert.strictEqual(missing.code, 1)
    worker.kill("SIGTERM")
    assert.strictEqual((await worker.ended).code, 0)
  }, 90_000)
})
