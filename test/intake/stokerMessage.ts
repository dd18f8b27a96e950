/** A job as a client of Stoker's AMQP dialect sends it. */
import { Clock, Effect } from "effect"
import type { AmqpMessage } from "../../src/layers/amqp/Amqp.ts"
import { queueOf } from "../../src/layers/intake/StokerTopology.ts"
import type { Sending } from "./suite.ts"

export const messageOf = (
  id: string,
  { delayMs, priority = "normal", retry, ttlMs, word = "hello" }: Sending = {}
): Effect.Effect<AmqpMessage> =>
  Effect.map(Clock.currentTimeMillis, (nowMs) => ({
    exchange: "",
    routingKey: queueOf(priority),
    body: new TextEncoder().encode(JSON.stringify({ id, function: "say", args: { word } })),
    properties: {
      headers: {
        ...(delayMs === undefined ? {} : { "x-stoker-delay": delayMs, "x-stoker-sent-at": nowMs }),
        ...(ttlMs === undefined ? {} : { "x-stoker-ttl": ttlMs, "x-stoker-sent-at": nowMs }),
        ...(retry === undefined ? {} : {
          "x-stoker-retry-on": retry.on.join(","),
          "x-stoker-max-attempts": retry.maxAttempts,
          "x-stoker-retry-backoff": retry.backoffMs
        })
      }
    }
  }))
