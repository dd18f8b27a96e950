/** A door for deterministic tests: hands over what the test offers and remembers how each delivery was settled. */
import { Effect, Queue, Stream } from "effect"
import { IntakeName } from "../../schemas/Ids.ts"
import type { Request } from "../journal/Journal.ts"
import type { Delivery, Intake } from "./Intake.ts"

/** Which of its three ends a delivery had. */
export type Settled = "acked" | "rejected" | "given back"

/** A door, what to put through it, and what became of that. */
export interface IntakeTest {
  readonly intake: Intake
  readonly offer: (request: Request) => Effect.Effect<void>
  /** Job id to how it was settled, in order. */
  readonly settled: ReadonlyArray<readonly [id: string, how: Settled]>
}

/** A door of that name, with nothing offered yet. */
export const make = (name = "test"): Effect.Effect<IntakeTest> =>
  Effect.map(Queue.unbounded<Delivery>(), (queue) => {
    const settled: Array<readonly [string, Settled]> = []
    const settle = (id: string, how: Settled) => Effect.sync(() => void settled.push([id, how]))
    return {
      intake: { name: IntakeName.make(name), deliveries: Stream.fromQueue(queue) },
      offer: (request) =>
        Effect.asVoid(Queue.offer(queue, {
          ...request,
          redelivered: false,
          ack: settle(request.job.id, "acked"),
          reject: () => settle(request.job.id, "rejected"),
          giveBack: settle(request.job.id, "given back")
        })),
      settled
    }
  })
