/** What a command shows of a job while it runs and when it has ended. */
import type { Effect } from "effect"
import type { JobEvent } from "../schemas/JobEvent.ts"
import type { StreamName } from "../schemas/Outcome.ts"
import type { OutputClosed } from "./Output.ts"
import type { Report } from "./Report.ts"

export interface View {
  readonly event: (event: JobEvent) => Effect.Effect<void, OutputClosed>
  /** Bytes of the program, in order of arrival. */
  readonly bytes: (stream: StreamName, bytes: Uint8Array) => Effect.Effect<void, OutputClosed>
  /** So many bytes were produced here and not kept. */
  readonly gap: (stream: StreamName, count: number) => Effect.Effect<void, OutputClosed>
  /** Words of ours. */
  readonly note: (text: string) => Effect.Effect<void>
  /** All that was produced has been shown. */
  readonly ended: (report: Report) => Effect.Effect<void, OutputClosed>
}
