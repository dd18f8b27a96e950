/** Ids for jobs whose callers choose none. */
import { Clock, Effect } from "effect"
import { SecureRandom } from "effect/crypto"

const alphabet = "0123456789abcdefghijklmnopqrstuv"

/**
 * 20 characters of base32hex in lower case, the shape of an xid: 4 bytes of time, so that ids sort by it, and 8 random
 * ones. Old clients that check for an xid take it.
 */
export const newId: Effect.Effect<string, never, SecureRandom.SecureRandom> = Effect.gen(function*() {
  const random = yield* SecureRandom.SecureRandom
  const seconds = Math.floor((yield* Clock.currentTimeMillis) / 1000)
  const bytes = Buffer.alloc(12)
  bytes.writeUInt32BE(seconds % 2 ** 32)
  bytes.set(yield* random.randomBytes(8), 4)
  let bits = BigInt(`0x${bytes.toString("hex")}`) << 4n
  let text = ""
  for (let digit = 0; digit < 20; digit += 1) {
    text = alphabet.charAt(Number(bits & 31n)) + text
    bits >>= 5n
  }
  return text
})
