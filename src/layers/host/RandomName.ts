/** Names nobody can guess and nobody has used. */
import { Effect } from "effect"
import type { SecureRandom } from "effect/crypto"

const alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
const fair = 256 - 256 % alphabet.length

/** `length` random lower-case letters and digits: 5.17 bits each. */
export const randomName = (random: SecureRandom.SecureRandom["Service"], length: number): Effect.Effect<string> =>
  // Bytes that would favour the first letters are passed over; twice as many as needed are nearly always enough.
  Effect.repeat(
    Effect.map(random.randomBytes(length * 2), (bytes) =>
      Array.from(
        bytes.filter((byte) => byte < fair).subarray(0, length),
        (byte) => alphabet.charAt(byte % alphabet.length)
      )
        .join("")),
    { until: (name) => name.length === length }
  )
