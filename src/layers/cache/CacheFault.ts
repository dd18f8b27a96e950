/** What went wrong with the compile cache's files. Jobs never hear of it: its operator does. */
import { Effect, Schema } from "effect"
import { remedyOf, textOf } from "../host/Errno.ts"

export class CacheFault extends Schema.TaggedError<CacheFault>()("CacheFault", {
  operation: Schema.String,
  reason: Schema.String,
  remedy: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    return `${this.operation}: ${this.reason}. ${this.remedy}`
  }
}

export const fault = (operation: string, path: string) => (cause: unknown): CacheFault =>
  new CacheFault({ operation, reason: `${path}: ${textOf(cause)}`, remedy: remedyOf(cause, path), cause })

/** Asks the file system. */
export const attempt = <A>(operation: string, path: string, run: () => Promise<A>): Effect.Effect<A, CacheFault> =>
  Effect.tryPromise({ try: run, catch: fault(operation, path) })
