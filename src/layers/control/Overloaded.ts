/** No room: which limit was reached, by its name in the configuration. */
import { Schema } from "effect"

/** The job was not taken. The sender may try again later. */
export class Overloaded extends Schema.TaggedError<Overloaded>()("Overloaded", {
  limit: Schema.String,
  maximum: Schema.Natural,
  /** What makes room. Absent: time, or a higher limit. */
  remedy: Schema.optionalKey(Schema.String)
}) {
  override get message() {
    return `the worker is full (${this.limit}: ${this.maximum}); ${this.remedy ?? "try again later or raise the limit"}`
  }
}
