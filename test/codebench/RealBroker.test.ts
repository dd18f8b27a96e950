import { assert, beforeAll, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Logger, Redacted, Stream } from "effect"
import { Amqp } from "../../src/layers/amqp/Amqp.ts"
import * as AmqpLib from "../../src/layers/amqp/AmqpLib.ts"
import * as CodeBenchEmitter from "../../src/layers/emitter/CodeBench.ts"
import { defaultTargets, type StatusTargets } from "../../src/layers/emitter/CodeBenchMessages.ts"
import * as CodeBenchIntake from "../../src/layers/intake/CodeBench.ts"
import { Broker } from "../support/Broker.ts"
import * as FakeLog from "./FakeLog.ts"
import { OldClient } from "./OldClient.ts"
import { exit, life, summary } from "./Telling.ts"

beforeAll(async () => {
  await using broker = await Broker.acquire()
  assert.include(broker.url, broker.vhost)
}, Broker.startMillis)

/** What is logged of broken connections and bad messages is what these tests bring about. */
const silent = Logger.layer([])

const ask = <A>(promise: () => Promise<A>) => Effect.promise(promise)

const acquireBroker = Effect.acquireRelease(ask(() => Broker.acquire()), (broker) => ask(() => broker.release()))

const acquireClient = ({ url }: Broker) =>
  Effect.acquireRelease(ask(() => OldClient.connect(url)), (client) => ask(() => client.close()))

/** A worker that runs nothing: every job prints `hello` and ends with 0. */
const startWorker = Effect.fnUntraced(function*({ url }: Broker, targets: StatusTargets = defaultTargets) {
  const transport = yield* Layer.build(
    Layer.fresh(AmqpLib.layer({ url: Redacted.make(url), instance: "codebench-test" })).pipe(Layer.provide(silent))
  )
  const services = Context.merge(transport, yield* Layer.build(FakeLog.layer({ stdout: ["hello\n"] })))
  yield* Effect.gen(function*() {
    const emitter = yield* CodeBenchEmitter.make({ targets })
    const intake = yield* CodeBenchIntake.make({
      queues: [CodeBenchIntake.exchangeQueue(3), CodeBenchIntake.readmeQueue(3)],
      emitter,
      targets
    })
    yield* intake.deliveries.pipe(
      Stream.runForEach(Effect.fnUntraced(function*({ ack, job, reply }) {
        const messages = yield* Effect.forEach(life(job, reply, exit(0), [summary("stdout", 6)]), emitter.render)
        yield* Effect.all(yield* Effect.forEach(messages.flat(), emitter.send))
        yield* ack
      })),
      Effect.forkScoped
    )
  }).pipe(Effect.provide([Layer.succeedContext(services), silent]))
  return Context.get(transport, Amqp)
})

const words = (client: OldClient) => client.statuses.map(({ id, status }) => `${id} ${status}`)

const told = (client: OldClient, count: number) =>
  ask(() => Broker.until(async () => words(client), (all) => all.length >= count))

const queueIs = (broker: Broker, name: string, ready: number) =>
  ask(() => Broker.until(() => broker.queue(name), (queue) => queue?.ready === ready && queue.unacked === 0))

const exists = (broker: Broker, queue: string) =>
  ask(() => Broker.until(() => broker.queue(queue), (found) => found !== undefined && found.consumers > 0))

const code = "int main() { return 0; }"
const success = { message: "Success", error: "", stderr: "", stdout: "hello\n", exec_duration: 1500, mem_usage: 1024 }

describe("clients of the old worker", { timeout: 60_000 }, () => {
  it.live("exchange form, client first: declares as the old worker did, sends, and meets us later", () =>
    Effect.gen(function*() {
      const broker = yield* acquireBroker
      const client = yield* acquireClient(broker)
      yield* ask(() => client.declareJobs())
      yield* ask(() => client.declareStatusExchange())
      yield* ask(() => client.followStatuses())
      client.submit({ id: "0b9c7c2e-6d1c-4a53-8a5d-3a3f6cf3c2a1", code, language: "c" })
      yield* startWorker(broker)
      yield* told(client, 3)
      assert.deepStrictEqual(client.statuses.map(({ status }) => status), ["received", "running", "done"])
      assert.deepInclude(client.statuses[2], { id: "0b9c7c2e-6d1c-4a53-8a5d-3a3f6cf3c2a1", ...success })
      assert.strictEqual(client.messages[0]?.properties.contentType, "text/plain")
      yield* queueIs(broker, "jobs_q", 0)
    }))

  it.live("exchange form, client second: finds everything as it declares it itself", () =>
    Effect.gen(function*() {
      const broker = yield* acquireBroker
      yield* startWorker(broker)
      yield* exists(broker, "jobs_q")
      yield* ask(() => Broker.until(() => broker.exchange("jobs_status_ex"), (found) => found !== undefined))
      const client = yield* acquireClient(broker)
      yield* ask(() => client.declareJobs())
      yield* ask(() => client.followStatuses())
      yield* ask(() => client.declareStatusExchange())
      for (const id of ["1", "2", "3"]) client.submit({ id, code, language: "python" })
      yield* told(client, 9)
      for (const id of ["1", "2", "3"]) {
        assert.deepStrictEqual(client.statuses.filter((status) => status.id === id).map(({ status }) => status), [
          "received",
          "running",
          "done"
        ])
      }
    }))

  it.live("README form, client first: its own queue, neither durable nor expiring, is used as it is", () =>
    Effect.gen(function*() {
      const broker = yield* acquireBroker
      const client = yield* acquireClient(broker)
      yield* ask(() => client.declareReadmeJobs())
      yield* ask(() => client.declareJobStatus("666"))
      yield* ask(() => client.follow("job_status_666"))
      client.submitReadme({ id: "666", type: "code", code })
      yield* startWorker(broker)
      yield* told(client, 3)
      assert.deepStrictEqual(words(client), ["666 received", "666 running", "666 done"])
      assert.deepInclude(yield* ask(() => broker.queue("job_status_666")), { durable: false, arguments: {} })
      yield* queueIs(broker, "jobs", 0)
    }))

  it.live("README form, client second: gets its statuses from the queue of its job, byte for byte", () =>
    Effect.gen(function*() {
      const broker = yield* acquireBroker
      yield* startWorker(broker)
      yield* exists(broker, "jobs")
      const client = yield* acquireClient(broker)
      yield* ask(() => client.declareReadmeJobs())
      client.submitReadme({ id: "667", type: "command", command: "echo hello" })
      yield* queueIs(broker, "job_status_667", 3)
      const bodies: Array<string> = []
      for (let n = 0; n < 3; n++) {
        const message = yield* ask(() => client.get("job_status_667"))
        bodies.push(message?.content.toString() ?? "")
      }
      const rest = (message: string, duration: number, memory: number) =>
        `"message":"${message}","error":"","exec_duration":${duration},"mem_usage":${memory}}`
      assert.deepStrictEqual(bodies, [
        `{"id":"667","status":"received","stderr":"","stdout":"",${rest("", 0, 0)}`,
        `{"id":"667","status":"running","stderr":"","stdout":"",${rest("", 0, 0)}`,
        `{"id":"667","status":"done","stderr":"","stdout":"hello\\n",${rest("Success", 1500, 1024)}`
      ])
      assert.deepInclude(yield* ask(() => broker.queue("job_status_667")), {
        durable: true,
        arguments: { "x-expires": 3_600_000, "x-max-length": 1000 }
      })
    }))

  it.live("README form, client second and declaring as the old worker did: with the old properties chosen", () =>
    Effect.gen(function*() {
      const broker = yield* acquireBroker
      yield* startWorker(broker, { ...defaultTargets, queueProperties: { durable: false } })
      yield* exists(broker, "jobs")
      const client = yield* acquireClient(broker)
      client.submitReadme({ id: "668", type: "code", code })
      yield* queueIs(broker, "job_status_668", 3)
      yield* ask(() => client.declareJobStatus("668"))
      yield* ask(() => client.follow("job_status_668"))
      yield* told(client, 3)
      assert.deepStrictEqual(words(client), ["668 received", "668 running", "668 done"])
    }))

  it.live("a deleted status exchange comes back with the next status", () =>
    Effect.gen(function*() {
      const broker = yield* acquireBroker
      const amqp = yield* startWorker(broker)
      yield* exists(broker, "jobs_q")
      yield* amqp.ensure({ exchanges: [{ name: "jobs_status_ex", type: "direct", durable: false }] })
      yield* ask(() =>
        broker.eval(
          `rabbit_exchange:delete(rabbit_misc:r(<<"${broker.vhost}">>, exchange, <<"jobs_status_ex">>), false, <<"test">>), ok.`
        )
      )
      const client = yield* acquireClient(broker)
      client.submit({ id: "1", code, language: "c" })
      yield* ask(() => Broker.until(() => broker.exchange("jobs_status_ex"), (found) => found !== undefined))
      yield* queueIs(broker, "jobs_q", 0)
      yield* ask(() => client.followStatuses())
      client.submit({ id: "2", code, language: "c" })
      yield* ask(() => Broker.until(async () => words(client), (all) => all.includes("2 done")))
    }))
})

describe("messages that are no jobs, on a real broker", { timeout: 60_000 }, () => {
  it.live("each is kept in stoker.dead with its reason, and told where its id can be read", () =>
    Effect.gen(function*() {
      const broker = yield* acquireBroker
      yield* startWorker(broker)
      yield* exists(broker, "jobs_q")
      const client = yield* acquireClient(broker)
      yield* ask(() => client.declareStatusExchange())
      yield* ask(() => client.followStatuses())
      const large = Buffer.alloc(20 * 1024 * 1024, "x")
      large.write(`{"id":"large","type":"code","code":"`)
      client.submitReadme(Buffer.from("int main() {}"))
      client.submitReadme(large)
      client.submit({ id: "../../etc/passwd", language: "c", code })
      client.submit({ id: "rusty", language: "rust", code })
      client.submit({ id: "fine", language: "c", code })
      yield* queueIs(broker, "stoker.dead", 4)

      const reasons = new Map<string, string>()
      for (let n = 0; n < 4; n++) {
        const letter = yield* ask(() => client.get("stoker.dead"))
        const headers = letter?.properties.headers ?? {}
        reasons.set(String(headers["x-stoker-reason"]), `${headers["x-stoker-queue"]} ${letter?.content.byteLength}`)
        assert.isAbove(String(headers["x-stoker-remedy"]).length, 10)
        assert.match(String(headers["x-stoker-time"]), /^\d{4}-\d\d-\d\dT/)
        assert.strictEqual(letter?.properties.deliveryMode, 2)
      }
      assert.deepStrictEqual(reasons.get("it is not JSON"), "jobs 13")
      assert.deepStrictEqual(reasons.get("it has 20971520 bytes, more than 16777216"), "jobs 1048576")
      assert.include(reasons.get(`the language "rust" is not known`), "jobs_q")
      assert.include([...reasons.keys()].join(), "its id is not usable")

      yield* ask(() =>
        Broker.until(async () => words(client), (all) => all.includes("rusty failed") && all.includes("fine done"))
      )
      assert.sameMembers(words(client), ["rusty failed", "fine received", "fine running", "fine done"])
      yield* queueIs(broker, "job_status_large", 1)
      const status = yield* ask(() => client.get("job_status_large"))
      assert.include(status?.content.toString(), `"status":"failed"`)

      assert.deepInclude(yield* ask(() => broker.queue("stoker.dead")), { type: "quorum", durable: true })
      yield* queueIs(broker, "jobs_q", 0)
      yield* queueIs(broker, "jobs", 0)
    }))

  it.live("connections cut in the middle lose none of them, and no job", () =>
    Effect.gen(function*() {
      const broker = yield* acquireBroker
      yield* startWorker(broker)
      yield* exists(broker, "jobs_q")
      const client = yield* acquireClient(broker)
      yield* ask(() => client.declareStatusExchange())
      yield* ask(() => client.bindStatuses())
      const numbers = Array.from({ length: 20 }, (_, n) => n)
      for (const n of numbers) {
        client.submit({ id: `good${n}`, language: "c", code })
        client.submit({ id: `bad${n}` })
      }
      yield* ask(() => Broker.until(() => broker.queue("stoker.dead"), (queue) => (queue?.ready ?? 0) > 2))
      yield* ask(() => broker.cutAllConnections())
      yield* queueIs(broker, "jobs_q", 0)

      const late = yield* acquireClient(broker)
      yield* ask(() => late.follow("jobs_status_q"))
      const last = () => new Map(late.statuses.map(({ id, status }) => [id, status]))
      const ends = yield* ask(() =>
        Broker.until(
          async () => last(),
          (all) => all.size === 40 && [...all.values()].every((status) => status === "done" || status === "failed")
        )
      )
      for (const n of numbers) {
        assert.strictEqual(ends.get(`good${n}`), "done")
        assert.strictEqual(ends.get(`bad${n}`), "failed")
      }
      const kept = new Set<string>()
      for (;;) {
        const letter = yield* ask(() => late.get("stoker.dead"))
        if (letter === undefined) break
        kept.add(letter.content.toString())
      }
      assert.strictEqual(kept.size, 20)
    }))
})
