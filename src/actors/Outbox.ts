/** Owes nobody anything for long: strikes off what was confirmed, and sends what an earlier worker left untold. */
import { Context, Effect, Layer, Queue, Schedule } from "effect"
import { Emitters } from "../layers/emitter/Emitter.ts"
import { Journal, type JournalError, type Owed } from "../layers/journal/Journal.ts"
import type { Message } from "../schemas/Message.ts"
import * as Actor from "./Actor.ts"

/** Rows read at once when an old outbox is worked off. */
const PAGE = 200

export class Outbox extends Context.Service<Outbox, {
  /**
   * Runs a settling whose messages its job actor will tell itself: no sweep tells them from the moment before they are
   * written down until they are struck off.
   */
  readonly reserving: <E, R>(
    messages: ReadonlyArray<Message>,
    settling: Effect.Effect<ReadonlyArray<Owed>, E, R>
  ) => Effect.Effect<ReadonlyArray<Owed>, E, R>
  /** They are confirmed: struck off soon, many at a time. Those of detached emitters, which nobody told yet, are sent. */
  readonly confirmed: (owed: ReadonlyArray<Owed>) => Effect.Effect<void>
  /** Tells everything that nobody here is telling: after a crash, or after another worker's death. */
  readonly sweep: Effect.Effect<number, JournalError>
}>()("stoker/actors/Outbox") {}

/** A journal that cannot be written now will be later: the messages were told, only the striking off waits. */
const patience = Schedule.exponential("100 millis").pipe(Schedule.upTo({ times: 8 }))

const make = Effect.gen(function*() {
  const journal = yield* Journal
  const scope = yield* Effect.scope
  const emitters = new Map((yield* Emitters).map((emitter) => [emitter.name, emitter]))
  /** By their stable ids: a row has no number yet while its transaction runs. */
  const busy = new Set<string>()
  const struck = yield* Queue.unbounded<Owed>()

  yield* Actor.start(
    { name: "outbox", capacity: 1, restart: { times: 10, within: "5 minutes", backoff: "200 millis" } },
    () =>
      Effect.gen(function*() {
        while (true) {
          const done = yield* Queue.takeAll(struck)
          yield* journal.told(done.map(({ row }) => row)).pipe(
            Effect.retry(patience),
            // Given up: the next sweep tells them again, which at-least-once allows.
            Effect.ignore({ log: "Warn", message: "confirmed messages could not be struck off the outbox" })
          )
          for (const { message } of done) busy.delete(message.id)
        }
      })
  )

  const tell = Effect.fnUntraced(function*(owed: Owed) {
    const emitter = emitters.get(owed.message.emitter)
    if (emitter === undefined) {
      yield* Effect.logWarning(
        `message ${owed.message.id} waits for the emitter ${owed.message.emitter}, not configured here`
      )
      return Effect.void
    }
    busy.add(owed.message.id)
    const confirmed = yield* emitter.send(owed.message)
    return Effect.andThen(confirmed, Queue.offer(struck, owed))
  })

  return Outbox.of({
    reserving: (messages, settling) =>
      Effect.suspend(() => {
        for (const { id } of messages) busy.add(id)
        // Not written down, or not by us: nobody of ours will tell them.
        return Effect.onError(settling, () => Effect.sync(() => messages.forEach(({ id }) => busy.delete(id))))
      }),
    confirmed: (owed) => {
      const isDetached = ({ message }: Owed) => emitters.get(message.emitter)?.detached === true
      return Effect.andThen(
        Queue.offerAll(struck, owed.filter((one) => !isDetached(one))),
        Effect.forEach(owed.filter(isDetached), (one) => Effect.forkIn(Effect.flatten(tell(one)), scope), {
          discard: true
        })
      )
    },
    sweep: Effect.gen(function*() {
      const left = (yield* journal.owed(PAGE + busy.size)).filter(({ message }) => !busy.has(message.id))
      const confirmations = yield* Effect.forEach(left, tell)
      yield* Effect.forkIn(Effect.all(confirmations, { concurrency: "unbounded", discard: true }), scope)
      return left.length
    })
  })
})

export const layer = Layer.effect(Outbox, make)
