import { beforeAll, it } from "@effect/vitest"
import { Effect } from "effect"
import { Broker } from "../support/Broker.ts"
import { suite } from "./Contract.ts"
import * as Live from "./Live.ts"

// The first broker of a run takes its time to start.
beforeAll(async () => {
  await using broker = await Broker.acquire()
  return void broker.url
}, Broker.startMillis)

suite({
  name: "amqplib on RabbitMQ",
  run: it.live,
  open: Effect.gen(function*() {
    const broker = yield* Live.broker
    return {
      amqp: yield* Live.connect(broker),
      cut: Effect.promise(() => broker.closeAllConnections()).pipe(Effect.asVoid),
      deleteQueue: (name) => Effect.promise(() => broker.deleteQueue(name)),
      awaitQueue: Live.awaitQueue(broker)
    }
  })
})
