/** The real transport on a real broker, for tests. */
import { Context, Effect, Layer, Redacted, References } from "effect"
import { Amqp } from "../../src/layers/amqp/Amqp.ts"
import * as AmqpLib from "../../src/layers/amqp/AmqpLib.ts"
import { Broker } from "../support/Broker.ts"

type Place = Pick<Broker, "url">
type Options = Partial<AmqpLib.AmqpOptions>

/** Closing the scope closes the transport. */
export const connectOrFail = Effect.fnUntraced(function*({ url }: Place, more: Options = {}) {
  const options = { url: Redacted.make(url), instance: "test", ...more }
  return Context.get(yield* Layer.build(Layer.fresh(AmqpLib.layer(options))), Amqp)
})

export const connect = (place: Place, more: Options = {}) => Effect.orDie(connectOrFail(place, more))

/** A virtual host of one's own, released with the scope. */
export const broker = Effect.acquireRelease(
  Effect.promise(() => Broker.acquire()),
  (broker) => Effect.promise(() => broker.release())
)

/** A broker of one's own. */
export const exclusiveBroker = Effect.acquireRelease(
  Effect.promise(() => Broker.acquireExclusive()),
  (broker) => Effect.promise(() => broker.release())
)

export const awaitQueue =
  (broker: Broker) => (name: string, expected: { readonly ready: number; readonly unacked: number }) =>
    Effect.asVoid(Effect.promise(() =>
      Broker.until(
        () => broker.queue(name),
        (queue) => queue?.ready === expected.ready && queue.unacked === expected.unacked
      )
    ))

/** The whole process's complaints while the scope is open: it must have none. */
export const complaints = Effect.acquireRelease(
  Effect.sync(() => {
    const heard: Array<unknown> = []
    const hear = (complaint: unknown) => void heard.push(complaint)
    const events = ["unhandledRejection", "uncaughtException", "warning"] as const
    for (const event of events) process.on(event, hear)
    return { heard, end: () => events.forEach((event) => process.off(event, hear)) }
  }),
  ({ end }) => Effect.sync(end)
).pipe(Effect.map(({ heard }) => heard))

/** Shows debug messages to the loggers as well. */
export const debug = Effect.provideService(References.MinimumLogLevel, "Debug")
