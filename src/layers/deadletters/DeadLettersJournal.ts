/** Dead letters of the embedded queue: jobs in the journal, by their keys. A job's id will do where it is the only one. */
import { DateTime, Effect, Layer, Option, Schema, Struct } from "effect"
import { JobKey, keyText } from "../../schemas/Ids.ts"
import { Job, keyOf } from "../../schemas/Job.ts"
import { NAME } from "../intake/Embedded.ts"
import { type DeadJob, Journal, type JournalError } from "../journal/Journal.ts"
import {
  type DeadLetter,
  DeadLetterError,
  DeadLetters,
  LetterNotFound,
  type OpenLetter,
  type Selection
} from "./DeadLetters.ts"

const encodeJob = Schema.encodeEffect(Schema.fromJsonString(Schema.toCodecJson(Job)))
const decodeKey = Schema.decodeUnknownOption(JobKey)

/** Letters that are looked through when one is asked for by its id alone, or all of them are wanted. */
const most = 1_000_000

const failure = (operation: string) => ({ cause, reason, remedy }: JournalError) =>
  new DeadLetterError({ operation, reason, remedy, ...(cause === undefined ? {} : { cause }) })

const letterOf = Effect.fnUntraced(
  function*({ diedAtMs, reason, receivedAtMs, remedy, request, terms, tries }: DeadJob) {
    const body = new TextEncoder().encode(yield* Effect.orDie(encodeJob(request.job)))
    const letter: OpenLetter = {
      id: keyText(keyOf(request.job)),
      reason,
      remedy,
      queue: NAME,
      time: DateTime.formatIso(DateTime.makeUnsafe(diedAtMs)),
      messageId: request.job.id,
      user: request.job.owner,
      bytes: body.byteLength,
      isCut: false,
      headers: { ...terms, tries, receivedAtMs },
      body
    }
    return letter
  }
)

const sealed = (letter: OpenLetter): DeadLetter => Struct.omit(letter, ["body", "headers"])

const make = Effect.gen(function*() {
  const journal = yield* Journal

  /** All there are. */
  const every = Effect.fnUntraced(function*(operation: string) {
    const { letters } = yield* Effect.mapError(journal.dead(most), failure(operation))
    return letters
  })

  /** By its key, or by its id alone. */
  const find = Effect.fnUntraced(function*(operation: string, id: string) {
    const [intake, owner, job] = id.split("/")
    const key = decodeKey({ intake, owner, id: job })
    const found = Option.isSome(key)
      ? [yield* Effect.mapError(journal.letter(key.value), failure(operation))]
      : (yield* every(operation)).filter(({ request }) => request.job.id === id)
    const [only, another] = found
    if (only === undefined) return yield* new LetterNotFound({ id })
    if (another === undefined) return only
    return yield* new DeadLetterError({
      operation,
      reason: `several letters have the id ${id}`,
      remedy: "Name the one you mean by its whole name, as `stoker dead list` prints it"
    })
  })

  /** Nothing is done if one of them is missing. */
  const select = (operation: string, which: Selection) =>
    which === "all" ? every(operation) : Effect.forEach(which, (id) => find(operation, id))

  return DeadLetters.of({
    list: Effect.fn("DeadLettersJournal.list")(function*(limit) {
      const { letters, total } = yield* Effect.mapError(journal.dead(limit), failure("listing dead letters"))
      return { total, letters: (yield* Effect.forEach(letters, letterOf)).map(sealed) }
    }),
    show: Effect.fn("DeadLettersJournal.show")((id) => Effect.flatMap(find("showing a dead letter", id), letterOf)),
    retry: Effect.fn("DeadLettersJournal.retry")(function*(which) {
      const operation = "retrying dead letters"
      const sent: Array<DeadLetter> = []
      for (const { request: { job } } of yield* select(operation, which)) {
        const revived = yield* Effect.mapError(journal.revive(keyOf(job)), failure(operation))
        if (revived._tag === "Queued") sent.push(sealed(yield* letterOf(revived.letter)))
        // Of all there are, those that cannot be sent stay, and hold up none.
        else if (which !== "all" && revived._tag === "Busy") {
          return yield* new DeadLetterError({
            operation: `queueing ${keyText(keyOf(job))} again`,
            reason: "a job of that id waits or runs",
            remedy: "Try again when it has ended: `stoker status` shows it"
          })
        }
      }
      return sent
    }),
    drop: Effect.fn("DeadLettersJournal.drop")(function*(which) {
      const operation = "dropping dead letters"
      const dropped: Array<DeadLetter> = []
      for (const letter of yield* select(operation, which)) {
        const isThere = yield* Effect.mapError(journal.discard(keyOf(letter.request.job)), failure(operation))
        if (isThere) dropped.push(sealed(yield* letterOf(letter)))
      }
      return dropped
    })
  })
})

/** Over the journal that the embedded queue is. */
export const layer: Layer.Layer<DeadLetters, never, Journal> = Layer.effect(DeadLetters, make)
