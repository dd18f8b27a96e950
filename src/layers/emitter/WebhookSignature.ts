/** Signs what is posted, so that its receiver knows who sent it, and when (the scheme of standardwebhooks.com). */
import { createHmac } from "node:crypto"

/** `whsec_` and base64, as many receivers write it; anything else is the secret itself. */
const keyOf = (secret: string): Buffer =>
  secret.startsWith("whsec_") ? Buffer.from(secret.slice("whsec_".length), "base64") : Buffer.from(secret)

/** `seconds` since 1970. The id is the same with each try, the time is not. */
export const signed = (
  secret: string,
  id: string,
  seconds: number,
  body: string
): Readonly<Record<string, string>> => ({
  "webhook-id": id,
  "webhook-timestamp": String(seconds),
  "webhook-signature": `v1,${createHmac("sha256", keyOf(secret)).update(`${id}.${seconds}.${body}`).digest("base64")}`
})
