/**
 * Tells one job's events: to whoever watches in this process, and through the emitters to the outside. Events before
 * the end are pipelined; what is not confirmed when the job ends goes into its outbox with the last one.
 */
import { Effect, Fiber, PubSub } from "effect"
import { type Emitter, Emitters } from "../layers/emitter/Emitter.ts"
import type { Owed, Request } from "../layers/journal/Journal.ts"
import { nowMs } from "../layers/Now.ts"
import { keyOf } from "../schemas/Job.ts"
import type { JobEvent } from "../schemas/JobEvent.ts"
import type { Message } from "../schemas/Message.ts"

/** An event without what the teller itself knows: key, attempt, number and time. */
type Fact<E> = E extends JobEvent ? Omit<E, "key" | "attempt" | "seq" | "atMs"> : never

export type JobFact = Fact<JobEvent>

export interface Teller {
  /** Events from now on belong to this attempt; their numbering begins again. */
  readonly attempt: (attempt: number) => void
  readonly tell: (fact: JobFact) => Effect.Effect<void>
  /** The last event and the messages owed with it: those still unconfirmed, then its own. Sends nothing yet. */
  readonly conclude: (
    fact: JobFact
  ) => Effect.Effect<{ readonly event: JobEvent; readonly owed: ReadonlyArray<Message> }>
  /** Sends what is owed, in order, and waits until all of it is confirmed. What is on its way already is not repeated. */
  readonly settle: (event: JobEvent, owed: ReadonlyArray<Owed>) => Effect.Effect<void>
}

const render = (emitters: ReadonlyArray<Emitter>, event: JobEvent, { job, reply }: Request) =>
  Effect.map(
    Effect.forEach(emitters, (emitter) => emitter.render({ event, job, reply })),
    (messages) => messages.flat()
  )

/** `watchers` is absent for a request that is refused because its id belongs to another job: those who watch that one must not hear it. */
export const make = Effect.fnUntraced(function*(request: Request, watchers: PubSub.PubSub<JobEvent> | undefined) {
  const emitters = yield* Emitters
  const scope = yield* Effect.scope
  const byName = new Map(emitters.map((emitter) => [emitter.name, emitter]))
  const key = keyOf(request.job)
  const underway = new Map<string, { readonly message: Message; readonly confirmed: Fiber.Fiber<void> }>()
  const sent = new Set<string>()
  /** What the outbox is to send: written down with the end. */
  const later: Array<Message> = []
  let attempt = 0
  let seq = 0

  const happened = (fact: JobFact) =>
    Effect.map(nowMs, (atMs): JobEvent => ({ ...fact, key, attempt, seq: seq++, atMs }))

  const watched = (event: JobEvent) => {
    if (watchers !== undefined) PubSub.publishUnsafe(watchers, event)
  }

  const send = Effect.fnUntraced(function*(message: Message) {
    const emitter = byName.get(message.emitter)
    if (emitter === undefined) return
    if (emitter.detached === true) {
      later.push(message)
      return
    }
    sent.add(message.id)
    const confirmation = yield* emitter.send(message)
    const confirmed = yield* Effect.forkIn(
      Effect.andThen(confirmation, Effect.sync(() => void underway.delete(message.id))),
      scope
    )
    underway.set(message.id, { message, confirmed })
  })

  const teller: Teller = {
    attempt: (next) => {
      attempt = next
      seq = 0
    },
    tell: Effect.fnUntraced(function*(fact) {
      const event = yield* happened(fact)
      watched(event)
      yield* Effect.forEach(yield* render(emitters, event, request), send, { discard: true })
    }),
    conclude: Effect.fnUntraced(function*(fact) {
      const event = yield* happened(fact)
      const last = yield* render(emitters, event, request)
      return { event, owed: [...later, ...Array.from(underway.values(), ({ message }) => message), ...last] }
    }),
    settle: Effect.fnUntraced(function*(event, owed) {
      watched(event)
      const fresh = owed.filter(({ message: { emitter, id } }) =>
        !sent.has(id) && byName.get(emitter)?.detached !== true
      )
      yield* Effect.forEach(fresh, ({ message }) => send(message), { discard: true })
      yield* Effect.forEach([...underway.values()], ({ confirmed }) => Fiber.join(confirmed), { discard: true })
    })
  }
  return teller
})
