import { it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { Amqp } from "../../src/layers/amqp/Amqp.ts"
import { AmqpTest, layerTest } from "../../src/layers/amqp/AmqpTest.ts"
import { suite } from "./Contract.ts"

suite({
  name: "layerTest",
  run: it.effect,
  open: Effect.gen(function*() {
    const context = yield* Layer.build(Layer.fresh(layerTest))
    const hand = Context.get(context, AmqpTest)
    return {
      amqp: Context.get(context, Amqp),
      cut: Effect.andThen(hand.disconnect, hand.connect),
      deleteQueue: hand.deleteQueue,
      awaitQueue: (name, expected) =>
        Effect.andThen(Effect.yieldNow, hand.look(name)).pipe(
          Effect.repeat({ until: (now) => now?.ready === expected.ready && now.unacked === expected.unacked }),
          Effect.asVoid
        )
    }
  })
})
