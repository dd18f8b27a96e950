import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Logger, Metric, Result, Schema } from "effect"
import { TestClock } from "effect/testing"
import { Amqp, AmqpError, type AmqpMessage, type QueueSpec } from "../../src/layers/amqp/Amqp.ts"
import * as CodeBench from "../../src/layers/emitter/CodeBench.ts"
import { defaultTargets } from "../../src/layers/emitter/CodeBenchMessages.ts"
import type { Emitter } from "../../src/layers/emitter/Emitter.ts"
import { Log } from "../../src/layers/log/Log.ts"
import { layerMemory } from "../../src/layers/log/LogMemory.ts"
import { decode } from "../../src/schemas/dialects/CodeBench.ts"
import { keyOf } from "../../src/schemas/Job.ts"
import * as FakeLog from "./FakeLog.ts"
import { exit, life, summary } from "./Telling.ts"

const job = Result.getOrThrow(decode({ body: new TextEncoder().encode(`{"id":"666","language":"c","code":"x"}`) }))
const toExchange = { dialect: "codebench", form: "exchange" }
const toQueue = { dialect: "codebench", form: "queue" }

const rendered = (
  log: Parameters<typeof FakeLog.layer>[0],
  telling: ReturnType<typeof life>,
  options: CodeBench.CodeBenchEmitterOptions = {}
) =>
  Effect.gen(function*() {
    const emitter = yield* CodeBench.make(options)
    const messages = yield* Effect.forEach(telling, emitter.render)
    return messages.flat()
  }).pipe(Effect.provide([recorder().layer, FakeLog.layer(log)]))

/** The last status of a job with this output. */
const lastStatus = (
  log: Parameters<typeof FakeLog.layer>[0],
  produced: { readonly stdout?: number; readonly stderr?: number },
  outputBytes = 100
) =>
  Effect.map(
    rendered(
      log,
      life(job, toExchange, exit(0), (["stdout", "stderr"] as const).map((name) => summary(name, produced[name] ?? 0))),
      { outputBytes }
    ),
    (messages) => JSON.parse(bodyOf(messages[2])) as { readonly stdout: string; readonly stderr: string }
  )

const Bodied = Schema.Struct({ content: Schema.Struct({ body: Schema.String }) })
const bodyOf = (message: unknown) => Schema.decodeUnknownSync(Bodied)(message).content.body

/** A broker that writes down what is asked of it. */
const recorder = (
  answers: {
    readonly routed?: boolean
    /** So many publishes fail, for this reason. */
    readonly refuse?: number
    readonly reason?: AmqpError["reason"]
    /** So many declares of a job's queue fail. */
    readonly refuseDeclares?: number
  } = {}
) => {
  const asked: Array<string> = []
  const queues: Array<QueueSpec> = []
  const published: Array<AmqpMessage> = []
  let refusals = answers.refuse ?? 0
  let declareRefusals = answers.refuseDeclares ?? 0
  const refusal = (reason: AmqpError["reason"]) =>
    new AmqpError({ operation: "test", reason, broker: "test", detail: "no exchange", remedy: "Declare it" })
  const answer = Effect.suspend(() =>
    refusals-- > 0
      ? Effect.fail(refusal(answers.reason ?? "Channel"))
      : Effect.succeed({ routed: answers.routed ?? true })
  )
  const publish = (message: AmqpMessage) => {
    published.push(message)
    asked.push(`publish ${message.exchange}/${message.routingKey}`)
    return answer
  }
  const layer = Layer.mock(Amqp)({
    ensure: (topology) => Effect.sync(() => void asked.push(`ensure ${JSON.stringify(topology)}`)),
    declareOrUse: (queue) =>
      Effect.suspend(() => {
        queues.push(queue)
        asked.push(`declare ${queue.name}`)
        return declareRefusals-- > 0 ? Effect.fail(refusal("Topology")) : Effect.void
      }),
    enqueue: (message) => Effect.sync(() => publish(message)),
    publish: (message) => Effect.suspend(() => publish(message))
  })
  return { asked, queues, published, layer }
}

const withEmitter = <A, E>(
  broker: ReturnType<typeof recorder>,
  use: (emitter: Emitter) => Effect.Effect<A, E>
) => Effect.flatMap(CodeBench.make(), use).pipe(Effect.provide([broker.layer, FakeLog.layer({}), Logger.layer([])]))

const sendAll = (emitter: Emitter, telling: ReturnType<typeof life>) =>
  Effect.gen(function*() {
    const messages = (yield* Effect.forEach(telling, emitter.render)).flat()
    const confirms = yield* Effect.forEach(messages, emitter.send)
    yield* Effect.all(confirms)
    return messages
  })

describe("CodeBench emitter: what it renders", () => {
  it.effect("received, running and the end, with ids that stay the same", () =>
    Effect.gen(function*() {
      const messages = yield* rendered({ stdout: ["hi"] }, life(job, toExchange, exit(0), [summary("stdout", 2)]))
      assert.deepStrictEqual(messages.map(({ id }) => id), [
        "codebench/codebench/666#1.0.0",
        "codebench/codebench/666#1.1.0",
        "codebench/codebench/666#1.end.0"
      ])
      assert.deepStrictEqual(messages[2], {
        id: "codebench/codebench/666#1.end.0",
        emitter: "codebench",
        content: {
          exchange: "jobs_status_ex",
          routingKey: "jobs_status_rk",
          body:
            `{"id":"666","status":"done","message":"Success","error":"","stderr":"","stdout":"hi","exec_duration":1500,"mem_usage":1024}`
        }
      })
    }))

  it.effect("the README's form goes to the job's own queue", () =>
    Effect.gen(function*() {
      const [received] = yield* rendered({}, life(job, toQueue))
      assert.deepStrictEqual(received?.content, {
        exchange: "",
        routingKey: "job_status_666",
        queue: "job_status_666",
        body:
          `{"id":"666","status":"received","stderr":"","stdout":"","message":"","error":"","exec_duration":0,"mem_usage":0}`
      })
    }))

  it.effect("nothing for a job of another door", () =>
    Effect.gen(function*() {
      for (const reply of [null, {}, "codebench", { dialect: "mstc" }, { dialect: "codebench", form: "pigeon" }]) {
        assert.deepStrictEqual(yield* rendered({}, life(job, reply)), [])
      }
    }))

  it.effect("output of both streams, whatever the outcome", () =>
    Effect.gen(function*() {
      const messages = yield* rendered(
        { stdout: ["some lines\n"], stderr: ["Segmentation"] },
        life(job, toExchange, exit(1), [summary("stdout", 11), summary("stderr", 12)])
      )
      assert.deepInclude(JSON.parse(bodyOf(messages[2])), {
        status: "failed",
        stdout: "some lines\n",
        stderr: "Segmentation"
      })
    }))

  it.effect("long output has its beginning, its end, and a mark between", () =>
    Effect.map(
      lastStatus({ stdout: [`${"a".repeat(80)}${"b".repeat(80)}`] }, { stdout: 160 }),
      ({ stdout }) => assert.strictEqual(stdout, `${"a".repeat(50)}\n[60 bytes left out here]\n${"b".repeat(50)}`)
    ))

  it.effect("a gap in the log is marked, and counted once with what the status cuts", () =>
    Effect.gen(function*() {
      const short = yield* lastStatus({ stdout: ["head", 7, "tail"] }, { stdout: 15 })
      assert.strictEqual(short.stdout, "head\n[7 bytes left out here]\ntail")
      const long = yield* lastStatus({ stdout: ["head", 1_000_000, "tail"] }, { stdout: 1_000_008 })
      assert.strictEqual(long.stdout, "head\n[1000000 bytes left out here]\ntail")
    }))

  it.effect("output that is no longer there, or never was, is said to be missing", () =>
    Effect.gen(function*() {
      assert.strictEqual((yield* lastStatus("absent", { stdout: 3 })).stdout, "\n[3 bytes left out here]\n")
      assert.strictEqual((yield* lastStatus("broken", { stderr: 300 })).stderr, "\n[300 bytes left out here]\n")
      assert.strictEqual(
        (yield* lastStatus({ stdout: ["abc"] }, { stdout: 9 })).stdout,
        "abc\n[6 bytes left out here]\n"
      )
      assert.strictEqual((yield* lastStatus("absent", {})).stdout, "")
    }))
})

describe("CodeBench emitter: the output of a real log", () => {
  it.effect("what the log dropped is marked where it is missing", () =>
    Effect.gen(function*() {
      const log = yield* Log
      const writer = yield* log.open(keyOf(job), { attempt: 1, keepBytes: 10 })
      yield* writer.append("stdout", new TextEncoder().encode(`head-${"x".repeat(500_000)}-tail`))
      yield* writer.append("stderr", new TextEncoder().encode("ä"))
      const output = yield* writer.end
      const emitter = yield* CodeBench.make({ outputBytes: 1000 })
      const messages = yield* Effect.forEach(life(job, toExchange, exit(0), output), emitter.render)
      assert.deepInclude(JSON.parse(bodyOf(messages.flat()[2])), {
        stdout: "head-\n[500000 bytes left out here]\n-tail",
        stderr: "ä"
      })
    }).pipe(Effect.provide([recorder().layer, layerMemory])))
})

describe("CodeBench emitter: what it sends", () => {
  it.effect("a job's queue is declared once, before its first status", () =>
    Effect.gen(function*() {
      const broker = recorder()
      yield* withEmitter(broker, (emitter) => sendAll(emitter, life(job, toQueue)))
      const asked = broker.asked.filter((ask) => !ask.startsWith("ensure"))
      assert.deepStrictEqual(asked, [
        "declare job_status_666",
        ...Array.from({ length: 3 }, () => "publish /job_status_666")
      ])
      assert.deepStrictEqual(broker.queues[0], {
        name: "job_status_666",
        durable: true,
        expires: 3_600_000,
        maxLength: 1000
      })
    }))

  it.effect("the status exchange is declared before anything is published to it, as the old worker did", () =>
    Effect.gen(function*() {
      const broker = recorder()
      yield* withEmitter(broker, (emitter) => sendAll(emitter, life(job, toExchange)))
      assert.strictEqual(
        broker.asked[0],
        `ensure {"exchanges":[{"name":"jobs_status_ex","type":"direct","durable":false}]}`
      )
      assert.lengthOf(broker.asked, 4)
    }))

  it.effect("messages are persistent text with the message's id", () =>
    Effect.gen(function*() {
      const broker = recorder()
      yield* withEmitter(broker, (emitter) => sendAll(emitter, life(job, toExchange)))
      const [first] = broker.published
      assert.notStrictEqual(first?.persistent, false)
      assert.deepStrictEqual(first?.properties, {
        contentType: "text/plain",
        messageId: "codebench/codebench/666#1.0.0"
      })
    }))

  it.effect("an id longer than AMQP allows keeps its distinguishing end", () =>
    Effect.gen(function*() {
      const broker = recorder()
      const long = { ...job, id: "i".repeat(128), owner: "o".repeat(128) } as typeof job
      yield* withEmitter(broker, (emitter) => sendAll(emitter, life(long, toExchange)))
      const sent = broker.published[2]?.properties?.messageId
      assert.strictEqual(sent?.length, 255)
      assert.isTrue(sent?.endsWith(`/${"i".repeat(128)}#1.end.0`))
    }))

  it.effect("a status that nobody is bound for is counted, no error", () =>
    Effect.gen(function*() {
      const before = (yield* Metric.value(CodeBench.counters.unroutable)).count
      yield* withEmitter(recorder({ routed: false }), (emitter) => sendAll(emitter, life(job, toExchange)))
      assert.strictEqual((yield* Metric.value(CodeBench.counters.unroutable)).count - before, 3)
    }))

  it.effect("a status refused is sent again after declaring again", () =>
    Effect.gen(function*() {
      const broker = recorder({ refuse: 1 })
      const before = (yield* Metric.value(CodeBench.counters.undeliverable)).count
      yield* withEmitter(broker, (emitter) => sendAll(emitter, life(job, toExchange).slice(0, 1)))
      assert.deepStrictEqual(broker.asked.map((ask) => ask.split(" ")[0]), ["ensure", "publish", "ensure", "publish"])
      assert.strictEqual((yield* Metric.value(CodeBench.counters.undeliverable)).count, before)
    }))

  it.effect("a status refused for good is counted and its wait ends", () =>
    Effect.gen(function*() {
      const before = (yield* Metric.value(CodeBench.counters.undeliverable)).count
      yield* withEmitter(recorder({ refuse: 9 }), (emitter) =>
        Effect.gen(function*() {
          yield* sendAll(emitter, life(job, toExchange).slice(0, 1))
          yield* Effect.flatten(emitter.send({ id: "x", emitter: "codebench", content: { of: "another version" } }))
        }))
      assert.strictEqual((yield* Metric.value(CodeBench.counters.undeliverable)).count - before, 2)
    }))

  it.effect("a status that the closing transport did not confirm is still owed: its wait does not end", () =>
    Effect.gen(function*() {
      const before = (yield* Metric.value(CodeBench.counters.undeliverable)).count
      yield* withEmitter(recorder({ refuse: 9, reason: "Closed" }), (emitter) =>
        Effect.gen(function*() {
          const sending = yield* sendAll(emitter, life(job, toExchange).slice(0, 1)).pipe(
            Effect.forkChild({ startImmediately: true })
          )
          yield* TestClock.adjust("1 hour")
          assert.isUndefined(sending.pollUnsafe())
        }))
      assert.strictEqual((yield* Metric.value(CodeBench.counters.undeliverable)).count, before)
    }))

  it.effect("a queue that cannot be declared is tried again, and does not keep its statuses back for ever", () =>
    Effect.gen(function*() {
      for (const refuseDeclares of [2, 1000]) {
        const broker = recorder({ refuseDeclares })
        yield* withEmitter(broker, (emitter) =>
          Effect.gen(function*() {
            const sending = yield* sendAll(emitter, life(job, toQueue).slice(0, 1)).pipe(
              Effect.forkChild({ startImmediately: true })
            )
            yield* TestClock.adjust("1 minute")
            yield* Fiber.join(sending)
          }))
        assert.lengthOf(broker.queues, Math.min(refuseDeclares, 4) + 1)
        assert.lengthOf(broker.published, 1)
      }
    }))

  it("the defaults are the old worker's names", () =>
    assert.deepInclude(defaultTargets, {
      exchange: "jobs_status_ex",
      routingKey: "jobs_status_rk",
      queuePrefix: "job_status_"
    }))
})
