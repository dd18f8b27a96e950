import type { Cause, Effect } from "effect"
import { Exit, Queue } from "effect"
import type { AmqpDelivery } from "./Amqp.ts"

/** Deliveries between the broker's push and the stream's pull. */
export type DeliveryBuffer = Queue.Queue<AmqpDelivery, Cause.Done>

/** As large as what the broker may have outstanding here: no delivery is ever refused for want of room. */
export const make = (prefetch: number): Effect.Effect<DeliveryBuffer> =>
  Queue.bounded<AmqpDelivery, Cause.Done>(prefetch)

/** Takes out what nobody pulled. */
export const leftovers = (buffer: DeliveryBuffer): ReadonlyArray<AmqpDelivery> => {
  const taken: Array<AmqpDelivery> = []
  while (true) {
    const exit = Queue.takeUnsafe(buffer)
    if (exit === undefined || Exit.isFailure(exit)) return taken
    taken.push(exit.value)
  }
}
