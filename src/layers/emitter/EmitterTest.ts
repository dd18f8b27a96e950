/** An emitter for deterministic tests: one message for each event it is asked about, kept in the order of sending. */
import { Effect, Schema } from "effect"
import { JobEvent } from "../../schemas/JobEvent.ts"
import { type Message, messageId } from "../../schemas/Message.ts"
import type { Emitter } from "./Emitter.ts"

const toJson = Schema.encodeSync(Schema.toCodecJson(JobEvent))
const fromJson = Schema.decodeUnknownSync(Schema.toCodecJson(JobEvent))

/** Which events it tells, and what becomes of their messages. */
export interface EmitterTestOptions {
  readonly name?: string
  readonly detached?: boolean
  readonly tells: (event: JobEvent) => boolean
  /** Runs before a message counts as sent, e.g. to fail a test's worker there. */
  readonly beforeSend?: (event: JobEvent) => Effect.Effect<void>
  /** The wait for its confirmation. */
  readonly confirm?: (event: JobEvent) => Effect.Effect<void>
  readonly onSent: (message: Message, event: JobEvent) => void
}

/** An emitter whose messages go to `onSent`. */
export const make = (options: EmitterTestOptions): Emitter => {
  const name = options.name ?? "test"
  return {
    name,
    ...(options.detached === undefined ? {} : { detached: options.detached }),
    render: ({ event }) =>
      Effect.sync(() =>
        options.tells(event) ? [{ id: messageId(event, 0), emitter: name, content: toJson(event) }] : []
      ),
    send: (message) => {
      const event = fromJson(message.content)
      return (options.beforeSend?.(event) ?? Effect.void).pipe(
        Effect.andThen(Effect.sync(() => options.onSent(message, event))),
        Effect.as(options.confirm?.(event) ?? Effect.void)
      )
    }
  }
}
