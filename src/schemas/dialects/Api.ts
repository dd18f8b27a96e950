/** What is written down with a job of the control plane, so that its outcome finds whoever asked to be told. */
import { Schema } from "effect"

/** The reply of jobs whose intake is `api`. */
export const ApiReply = Schema.Struct({
  dialect: Schema.Literal("api"),
  /** Where the ended job is posted to. Looked at when the job was taken: the operator allows it. */
  webhook: Schema.optionalKey(Schema.String)
})
export type ApiReply = typeof ApiReply.Type
