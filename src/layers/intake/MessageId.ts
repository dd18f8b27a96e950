/** Job ids of messages whose senders know nothing of jobs. */
import { Schema } from "effect"
import { createHash } from "node:crypto"
import { JobId } from "../../schemas/Ids.ts"

const isJobId = Schema.is(JobId)

/**
 * The message's id if a job can have it, else one that is made of it: libraries write things like
 * `urn:uuid:…` or `ID:host-1:2`. The same message has the same id, however often it is delivered.
 */
export const idOfMessage = (messageId: string | undefined): string | undefined =>
  messageId === undefined || messageId === "" || isJobId(messageId)
    ? messageId
    : `m-${createHash("sha256").update(messageId).digest("hex").slice(0, 40)}`
