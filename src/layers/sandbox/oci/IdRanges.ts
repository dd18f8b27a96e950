/**
 * Which host users a sandbox's users are. The kernel counts pipes, descriptors in flight, message queues and pending
 * signals for each host user: sandboxes that shared one could exhaust each other's.
 */
import { Effect } from "effect"
import { createHash } from "node:crypto"

/** Users of one sandbox. */
export const RANGE = 65_536

/** From where systemd's list of used ids (UIDS-GIDS.md) has nothing any more, to the last positive 32-bit id. */
const FIRST = 0x7000_0000
const RANGES = (0x7fff_0000 - FIRST) / RANGE

/**
 * The ranges of one worker. Workers of one host begin at places that follow from their instance ids; should two meet, the
 * sandboxes share those counters and nothing else.
 */
export const make = (instance: string) => {
  const offset = createHash("sha256").update(instance).digest().readUInt32BE(0) % RANGES
  const taken = new Set<number>()
  const lowestFree = () => {
    let slot = 0
    while (taken.has(slot)) slot++
    return slot
  }
  return {
    /** The first id of a range that no other living sandbox of this worker has, until the scope closes. */
    take: Effect.acquireRelease(
      Effect.sync(() => {
        const slot = lowestFree()
        taken.add(slot)
        return slot
      }),
      (slot) => Effect.sync(() => taken.delete(slot))
    ).pipe(Effect.map((slot) => FIRST + ((offset + slot) % RANGES) * RANGE))
  }
}
