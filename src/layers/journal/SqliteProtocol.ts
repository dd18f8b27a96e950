/** What the Effect side and the SQLite thread say to each other. */
import type { Operation } from "./Operation.ts"
import type { Policy } from "./Rules.ts"
import type { Failure } from "./SqliteFailure.ts"

/** Given to the thread when it starts. */
export interface ThreadOptions {
  readonly filename: string
  /** How long a transaction waits for another process to end its own, in milliseconds. */
  readonly busyMs: number
  readonly policy: Policy
}

export type ToThread =
  /** To be carried out in this order, in one transaction. One batch at a time. */
  | { readonly _tag: "Batch"; readonly operations: ReadonlyArray<Operation> }
  /** Close the file and end. */
  | { readonly _tag: "Close" }

export type Result =
  | { readonly _tag: "Done"; readonly answer: unknown }
  | { readonly _tag: "Failed"; readonly failure: Failure }

export type FromThread =
  /** The file is open and has this program's layout. */
  | { readonly _tag: "Opened" }
  /** It could not be opened; the thread ends. */
  | { readonly _tag: "Refused"; readonly failure: Failure }
  /** One for each operation of the batch, in its order, durable. */
  | { readonly _tag: "Results"; readonly results: ReadonlyArray<Result> }
