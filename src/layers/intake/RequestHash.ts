/** Tells a repeated request from another one under the same id. */
import type { Schema } from "effect"
import { createHash } from "node:crypto"
import type { Job } from "../../schemas/Job.ts"

/** JSON whose objects have their keys in order, so that equal values have equal texts. */
const canonical = (value: Schema.Json): string => {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`
  if (typeof value !== "object" || value === null) return JSON.stringify(value)
  const fields = Object.entries(value as Readonly<Record<string, Schema.Json>>)
  return `{${
    fields.toSorted(([a], [b]) => (a < b ? -1 : 1)).map(([name, field]) =>
      `${JSON.stringify(name)}:${canonical(field)}`
    )
      .join(",")
  }}`
}

/**
 * Hex SHA-256 of what a job asks for: function, arguments, class, limits. Not of the bytes that were sent, so that
 * spacing, the order of fields and a dialect's two ways to say the same make no conflict; and not of id, owner and
 * intake, which are the key it is compared under, nor of the trace.
 */
export const requestHash = (job: Job): string =>
  createHash("sha256")
    .update(canonical([job.function, job.args, job.class ?? null, { ...job.limits }]))
    .digest("hex")
