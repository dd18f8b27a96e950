/** Names nobody can guess and nobody has used. */
import { Effect } from "effect"
import type { SecureRandom } from "effect/crypto"

const alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"

/** `length` random lower-case letters and digits: 5.17 bits each. */
export const randomName = (random: SecureRandom.SecureRandom["Service"], length: number): Effect.Effect<string> =>
  Effect.replicateEffect(random.intBetween(0, alphabet.length - 1), length).pipe(
    Effect.map((indexes) => indexes.map((index) => alphabet.charAt(index)).join(""))
  )
