/** What an operator does with messages that became no job: look, send them again, throw them away. */
import { Context, type Effect, Schema } from "effect"

/** One letter without its body. */
export const DeadLetter = Schema.Struct({
  /** Made of its content and origin, so it is the same however often it is looked at. Copies of one letter share it. */
  id: Schema.String,
  reason: Schema.String,
  remedy: Schema.String,
  /** The queue it was taken from. */
  queue: Schema.String,
  /** ISO 8601: when it was put here. Absent if the broker did it. */
  time: Schema.optionalKey(Schema.String),
  messageId: Schema.optionalKey(Schema.String),
  /** The sending user, if the broker vouched for one. */
  user: Schema.optionalKey(Schema.String),
  bytes: Schema.Natural,
  /** It was too large to keep whole, so it cannot be sent again. */
  isCut: Schema.Boolean
})
export type DeadLetter = typeof DeadLetter.Type

/** A letter with all there is. */
export interface OpenLetter extends DeadLetter {
  readonly headers: Readonly<Record<string, unknown>>
  readonly body: Uint8Array
}

/** There is no letter of that id (any more). */
export class LetterNotFound extends Schema.TaggedError<LetterNotFound>()("LetterNotFound", { id: Schema.String }) {
  override get message() {
    return `there is no dead letter ${this.id}; \`stoker dead list\` shows those there are`
  }
}

/** The letters could not be had, or one could not be sent where it came from. Those not named as done are still there. */
export class DeadLetterError extends Schema.TaggedError<DeadLetterError>()("DeadLetterError", {
  operation: Schema.String,
  reason: Schema.String,
  remedy: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    return `${this.operation} failed: ${this.reason}. ${this.remedy}`
  }
}

/** Ids, or every letter there is. */
export type Selection = ReadonlyArray<string> | "all"

export class DeadLetters extends Context.Service<DeadLetters, {
  /** The oldest first, and how many there are in all. */
  readonly list: (
    limit: number
  ) => Effect.Effect<{ readonly total: number; readonly letters: ReadonlyArray<DeadLetter> }, DeadLetterError>
  readonly show: (id: string) => Effect.Effect<OpenLetter, LetterNotFound | DeadLetterError>
  /**
   * Sends them to where they came from, as new: their tries are counted from 1, a delay is over, their time to live
   * begins again. Each leaves the dead letters once the broker has confirmed the copy. Gives what was sent.
   */
  readonly retry: (which: Selection) => Effect.Effect<ReadonlyArray<DeadLetter>, LetterNotFound | DeadLetterError>
  /** Throws them away. Gives what was thrown away. */
  readonly drop: (which: Selection) => Effect.Effect<ReadonlyArray<DeadLetter>, LetterNotFound | DeadLetterError>
}>()("stoker/layers/deadletters/DeadLetters") {}
