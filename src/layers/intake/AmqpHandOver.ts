/** Hands over what comes from several queues, in turns by their weights; what nobody took goes back. */
import { type Cause, Effect, Exit, Queue, Stream } from "effect"
import type { Delivery } from "./Intake.ts"
import * as Turns from "./Turns.ts"

export interface Lane<D extends Delivery> {
  /** Turns, relative to the others' while they too have something. */
  readonly weight: number
  readonly deliveries: Stream.Stream<D>
}

interface Open<D> extends Turns.Lane {
  readonly queue: Queue.Queue<D>
}

/** Each lane holds one delivery ready and one in its hand, so that the broker's prefetch stays the bound. */
export const merge = <D extends Delivery>(lanes: ReadonlyArray<Lane<D>>): Stream.Stream<D> =>
  Stream.unwrap(Effect.gen(function*() {
    const bell = yield* Queue.sliding<void>(1)
    const waiting = new Set<D>()
    // Taken from the broker and by nobody from us: other workers shall have them now, not when we end.
    yield* Effect.addFinalizer(() =>
      Effect.forEach(waiting, (delivery) => delivery.giveBack, { concurrency: "unbounded", discard: true })
    )
    const broken: Array<Cause.Cause<never>> = []
    const open = yield* Effect.forEach(
      lanes,
      Effect.fnUntraced(function*({ deliveries, weight }) {
        const queue = yield* Queue.bounded<D>(1)
        yield* deliveries.pipe(
          Stream.runForEach((delivery) => {
            waiting.add(delivery)
            return Effect.andThen(Queue.offer(queue, delivery), Queue.offer(bell, undefined))
          }),
          // A defect must reach whoever watches over this intake, not end one queue in silence.
          Effect.tapCause((cause) => {
            broken.push(cause)
            return Queue.offer(bell, undefined)
          }),
          Effect.forkScoped
        )
        return { weight, queue, credit: 0 } satisfies Open<D>
      })
    )
    const take: Effect.Effect<D> = Effect.suspend(() => {
      const [cause] = broken
      if (cause !== undefined) return Effect.failCause(cause)
      const lane = Turns.next(open.filter(({ queue }) => Queue.sizeUnsafe(queue) > 0))
      if (lane === undefined) return Effect.andThen(Queue.take(bell), take)
      const exit = Queue.takeUnsafe(lane.queue)
      if (exit === undefined || Exit.isFailure(exit)) return take
      waiting.delete(exit.value)
      return Effect.succeed(exit.value)
    })
    return Stream.fromEffectRepeat(take)
  }))
