/** Where the function host lies, for drivers that show it to their sandboxes. */
import { Context, Schema } from "effect"

/** A file of functions, or all of them together, cannot be used: the worker does not start with them. */
export class FunctionsRefused extends Schema.TaggedError<FunctionsRefused>()("FunctionsRefused", {
  /** The file or files it is about. */
  file: Schema.String,
  reason: Schema.String,
  remedy: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    return `functions of ${this.file}: ${this.reason}. ${this.remedy}`
  }
}

/** Absent: this worker has no function with a handler, and no sandbox a function host. */
export class FunctionHost extends Context.Service<FunctionHost, {
  /** The Node that runs it: absolute, of this host. */
  readonly node: string
  /** Holds the files that `HostProgram.ts` names. */
  readonly directory: string
  /** The functions it has. */
  readonly names: ReadonlySet<string>
}>()("stoker/layers/functions/FunctionHost") {}
