/** The door for the program the worker is embedded in: hands a request straight to the dispatcher. */
import { Context, Deferred, Effect, Layer, Queue, Stream } from "effect"
import { IntakeName } from "../../schemas/Ids.ts"
import type { Request } from "../journal/Journal.ts"
import type { Delivery, Intake } from "./Intake.ts"

/** How the worker parted from a request: settled, refused for good, or given back unrun. */
export type Parting =
  | { readonly _tag: "Settled" }
  | { readonly _tag: "Rejected"; readonly reason: string }
  | { readonly _tag: "GivenBack" }

/** Jobs of the program itself, handed over without a queue between. */
export class Direct extends Context.Service<Direct, {
  readonly intake: Intake
  /** Hands the request over; the effect it gives waits for the parting. Not durable before its claim. */
  readonly submit: (request: Request) => Effect.Effect<Effect.Effect<Parting>>
}>()("stoker/layers/intake/Direct") {}

/** `name` is the door's name in job keys, e.g. `cli`. */
export const layer = (name: string) =>
  Layer.effect(
    Direct,
    Effect.gen(function*() {
      const queue = yield* Queue.bounded<Delivery>(16)
      return Direct.of({
        intake: { name: IntakeName.make(name), deliveries: Stream.fromQueue(queue) },
        submit: Effect.fnUntraced(function*(request) {
          const parted = yield* Deferred.make<Parting>()
          const part = (parting: Parting) => Effect.asVoid(Deferred.succeed(parted, parting))
          yield* Queue.offer(queue, {
            ...request,
            redelivered: false,
            ack: part({ _tag: "Settled" }),
            reject: (reason) => part({ _tag: "Rejected", reason }),
            giveBack: part({ _tag: "GivenBack" })
          })
          return Deferred.await(parted)
        })
      })
    })
  )
