import { it } from "@effect/vitest"
import { Context, Effect, Layer, Queue, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Amqp } from "../../src/layers/amqp/Amqp.ts"
import { AmqpTest, layerTest } from "../../src/layers/amqp/AmqpTest.ts"
import * as StokerIntake from "../../src/layers/intake/Stoker.ts"
import { type Subject, suite } from "./functionKeys.ts"

const open = Effect.gen(function*() {
  const context = yield* Layer.build(Layer.fresh(layerTest))
  const amqp = Context.get(context, Amqp)
  const { look } = Context.get(context, AmqpTest)
  const { deliveries } = yield* StokerIntake.make({
    slots: 4,
    emitter: { send: () => Effect.succeed(Effect.void) },
    user: "guest"
  }).pipe(Effect.provideContext(context))
  const arrived = yield* Queue.unbounded<StokerIntake.StokerDelivery>()
  yield* Effect.forkScoped(Stream.runForEach(deliveries, (delivery) => Queue.offer(arrived, delivery)), {
    startImmediately: true
  })
  yield* Effect.repeat(Effect.yieldNow, { times: 50 })
  const subject: Subject = {
    amqp,
    arrived,
    letters: (count) =>
      Effect.gen(function*() {
        yield* Effect.andThen(Effect.yieldNow, look("stoker.dead")).pipe(
          Effect.repeat({ until: (queue) => queue?.ready === count })
        )
        return yield* amqp.consume("stoker.dead", { prefetch: 100 }).pipe(
          Stream.take(count),
          Stream.mapEffect(({ body, giveBack, properties: { headers = {} } }) =>
            Effect.as(giveBack, { body: new TextDecoder().decode(body), headers })
          ),
          Stream.runCollect
        )
      }),
    pass: TestClock.adjust
  }
  return subject
})

suite("in memory", it.effect, open)
