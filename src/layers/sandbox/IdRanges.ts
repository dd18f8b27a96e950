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
const END = 0x7fff_0000
/** The last of them, one for each machine: its VMM has no users inside. */
const FIRST_OF_MACHINES = END - 64 * RANGE

/** Host users that sandboxes are given, in pieces of `size`. */
interface Ids {
  readonly first: number
  readonly end: number
  readonly size: number
}

/** For sandboxes with a user namespace. */
export const containers: Ids = { first: FIRST, end: FIRST_OF_MACHINES, size: RANGE }
/** For VMMs. */
export const machines: Ids = { first: FIRST_OF_MACHINES, end: END, size: 1 }

/**
 * The ranges of one worker. Workers of one host begin at places that follow from their instance ids; should two meet, the
 * sandboxes share those counters and nothing else.
 */
export const make = (instance: string, { end, first, size }: Ids) => {
  const pieces = (end - first) / size
  const offset = createHash("sha256").update(instance).digest().readUInt32BE(0) % pieces
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
    ).pipe(Effect.map((slot) => first + ((offset + slot) % pieces) * size))
  }
}
