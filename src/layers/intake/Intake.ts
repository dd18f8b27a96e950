/** A door through which jobs come. It decodes through its dialect and hands over deliveries; it runs nothing. */
import { Context, type Effect, type Stream } from "effect"
import type { IntakeName } from "../../schemas/Ids.ts"
import type { Request } from "../journal/Journal.ts"

/** A job as an intake hands it over. Exactly one of `ack`, `reject`, `giveBack` is used; none of them fails. */
export interface Delivery extends Request {
  /** The transport says it has handed this out before. A hint: the journal decides. */
  readonly redelivered: boolean
  /** The job is settled and told: forget it. */
  readonly ack: Effect.Effect<void>
  /** It will never be run: keep it with the reason (dead letter). */
  readonly reject: (reason: string) => Effect.Effect<void>
  /** Not started here: hand it to another worker or to us later. */
  readonly giveBack: Effect.Effect<void>
}

export interface Intake {
  readonly name: IntakeName
  /** Never fails; interrupting it stops taking, and what was handed over can still be settled. */
  readonly deliveries: Stream.Stream<Delivery>
}

/** The doors this worker was built with. */
export class Intakes extends Context.Service<Intakes, ReadonlyArray<Intake>>()("stoker/layers/intake/Intakes") {}
