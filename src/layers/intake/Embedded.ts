/** The embedded queue's door: jobs are rows of the journal in state `queued`, put there by this process or another. */
import type { Cause } from "effect"
import { Context, Effect, Layer, Queue, Schedule, Stream } from "effect"
import { IntakeName, keyText } from "../../schemas/Ids.ts"
import { keyOf } from "../../schemas/Job.ts"
import { Journal, type Request } from "../journal/Journal.ts"
import type { Delivery, Intake } from "./Intake.ts"

export const NAME = IntakeName.make("embedded")

/** How often rows that another process wrote are looked for. Our own are taken at once. */
const POLL = "200 millis"

/** Rows handed over at once; they wait in the dispatcher's bounded hand. */
const PAGE = 64

export class Embedded extends Context.Service<Embedded, {
  readonly intake: Intake
  /** A row was written: look now. */
  readonly wake: Effect.Effect<void>
}>()("stoker/layers/intake/Embedded") {}

const nameOf = ({ job }: Request) => keyText(keyOf(job))

const make = Effect.gen(function*() {
  const journal = yield* Journal
  const bell = yield* Queue.sliding<void, Cause.Done>(1)
  // A row stays `queued` until its claim: what was handed over is not handed over again meanwhile.
  const handed = new Set<string>()

  const delivery = (request: Request): Delivery => {
    const done = Effect.sync(() => void handed.delete(nameOf(request)))
    // Settling is the acknowledgement: the row has left `queued`.
    return { ...request, redelivered: false, ack: done, reject: () => done, giveBack: done }
  }

  const look = journal.queued(PAGE + handed.size).pipe(
    Effect.map((requests) => requests.filter((request) => !handed.has(nameOf(request))).slice(0, PAGE)),
    Effect.tap((requests) => Effect.sync(() => requests.forEach((request) => handed.add(nameOf(request))))),
    Effect.catch((error) => Effect.as(Effect.logWarning(`the embedded queue cannot be read: ${error.message}`), []))
  )
  const deliveries = Stream.fromQueue(bell).pipe(
    Stream.merge(Stream.fromSchedule(Schedule.spaced(POLL))),
    Stream.mapEffect(() => look),
    Stream.flattenIterable,
    Stream.map(delivery)
  )
  return Embedded.of({
    intake: { name: NAME, deliveries },
    wake: Effect.asVoid(Queue.offer(bell, undefined))
  })
})

export const layer = Layer.effect(Embedded, make)
