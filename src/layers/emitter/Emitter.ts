/** Turns facts of a job's life into messages for somebody outside, and sends them until they are confirmed. */
import { Context, type Effect, type Schema } from "effect"
import type { Job } from "../../schemas/Job.ts"
import type { JobEvent } from "../../schemas/JobEvent.ts"
import type { Message } from "../../schemas/Message.ts"

/** What a message may need beside the event. */
export interface Telling {
  readonly event: JobEvent
  readonly job: Job
  /** As the intake wrote it down; each emitter recognises its own. */
  readonly reply: Schema.Json
}

/** Tells somebody outside about jobs. It is asked about every job's events, whatever its door. */
export interface Emitter {
  readonly name: string
  /**
   * No job waits for its messages, and none gives up its slot late for them: once they are written down with the outcome the
   * outbox sends them. For receivers who may be away for long. Absent: false.
   */
  readonly detached?: boolean
  /** The messages this event owes, in the order they must be seen. Reads the log, sends nothing. */
  readonly render: (telling: Telling) => Effect.Effect<ReadonlyArray<Message>>
  /**
   * Puts the message in the sending order now and gives back the wait for its confirmation. A message that can never
   * be sent (its target is gone for good) is logged and counted, and its wait ends too.
   */
  readonly send: (message: Message) => Effect.Effect<Effect.Effect<void>>
}

/** The emitters this worker was built with. */
export class Emitters extends Context.Service<Emitters, ReadonlyArray<Emitter>>()("stoker/layers/emitter/Emitters") {}
