/** A message owed to the outside because of a job's event: rendered once, kept in the outbox until it is confirmed. */
import { Schema } from "effect"
import { keyText } from "./Ids.ts"
import type { JobEvent } from "./JobEvent.ts"

/** What an emitter rendered and will be asked to send. */
export const Message = Schema.Struct({
  /** Stable over resends: `<job key>#<attempt>.<seq or end>.<n>`, so that a receiver can drop repeats. */
  id: Schema.NonEmptyString,
  /** The emitter that can send it. */
  emitter: Schema.NonEmptyString,
  /** What that emitter needs: for AMQP exchange, routing key, properties and body. */
  content: Schema.Json
})
export type Message = typeof Message.Type

/**
 * A message's stable id: the job, the attempt, the event's number, and the message's place among that event's own. The
 * last event is `end` instead of its number: told again later it has another number, and must not look like a new fact,
 * nor like the fact that had its number before.
 */
export const messageId = (event: JobEvent, n: number): string =>
  `${keyText(event.key)}#${event.attempt}.${event._tag === "Ended" ? "end" : event.seq}.${n}`
