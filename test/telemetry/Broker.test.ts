/** The state of a real broker's connections in the metrics. */
import { assert, beforeAll, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, Logger, Metric, Redacted, Stream } from "effect"
import { PrometheusMetrics } from "effect/observability"
import { Amqp } from "../../src/layers/amqp/Amqp.ts"
import * as AmqpLib from "../../src/layers/amqp/AmqpLib.ts"
import { Broker } from "../support/Broker.ts"
import { parse, valueOf } from "./Prometheus.ts"

const ask = <A>(promise: () => Promise<A>) => Effect.promise(promise)

beforeAll(async () => {
  await using broker = await Broker.acquire()
  assert.include(broker.url, broker.vhost)
}, Broker.startMillis)

describe("a broker's connections", () => {
  it.live("are up, go and come back in the metrics; each return is counted", () =>
    Effect.gen(function*() {
      const broker = yield* Effect.acquireRelease(ask(() => Broker.acquire()), (broker) => ask(() => broker.release()))
      const context = yield* Layer.build(
        Layer.fresh(AmqpLib.layer({ url: Redacted.make(broker.url), instance: "metrics" })).pipe(
          Layer.provideMerge(Layer.merge(Logger.layer([]), Layer.succeed(Metric.MetricRegistry, new Map())))
        )
      )
      const amqp = Context.get(context, Amqp)
      const connected = (is: boolean) =>
        amqp.changes.pipe(Stream.filter((status) => status.connected === is), Stream.runHead)
      const metrics = Effect.map(Effect.provideContext(PrometheusMetrics.format(), context), parse)
      yield* connected(true)
      const before = yield* metrics
      assert.strictEqual(valueOf(before, "stoker_broker_connected"), 1)
      assert.strictEqual(valueOf(before, "stoker_broker_blocked"), 0)
      assert.strictEqual(valueOf(before, "stoker_broker_connects_total", { connection: "publish" }), 1)
      assert.strictEqual(valueOf(before, "stoker_broker_connects_total", { connection: "consume" }), 1)
      yield* ask(() => broker.closeAllConnections())
      yield* connected(false)
      assert.strictEqual(valueOf(yield* metrics, "stoker_broker_connected"), 0)
      yield* connected(true)
      const after = yield* metrics
      assert.strictEqual(valueOf(after, "stoker_broker_connected"), 1)
      assert.isAtLeast(valueOf(after, "stoker_broker_connects_total"), 3)
    }), 30_000)
})
