/**
 * Phases of a machine: its own kernel holds them to their limits and counts what they use, by the guest's word. Time is the
 * host's: what the VMM took of its cores, with the machine's kernel and its devices.
 */
import { Effect } from "effect"
import type { Limits } from "../../schemas/Limits.ts"
import type { Cgroup } from "../cgroup/Cgroup.ts"
import type { GuestLink } from "./GuestLink.ts"
import type * as HostUsage from "./HostUsage.ts"
import type { Meter } from "./Meter.ts"

type GuestLimits = Parameters<GuestLink["limit"]>[0]

const guestLimits = ({ cpus, memoryBytes, pids }: Limits): GuestLimits => ({ memoryBytes, pids, cpus })

const isSame = (one: GuestLimits, other: GuestLimits) =>
  one.memoryBytes === other.memoryBytes && one.pids === other.pids && one.cpus === other.cpus

/** `usual` are the limits most phases have: the first one finds them in force. */
export const make = Effect.fnUntraced(function*(cgroup: Cgroup, link: GuestLink, usual: Limits) {
  /** In force since nobody has run under them. */
  let waiting: GuestLimits | undefined = guestLimits(usual)
  yield* link.limit(waiting)

  const meter: Meter = {
    enter: Effect.fnUntraced(function*({ limits }) {
      const wanted = guestLimits(limits)
      if (waiting === undefined || !isSame(waiting, wanted)) yield* link.limit(wanted)
      waiting = undefined
      // A new group inside counts from nothing.
      const baseline: HostUsage.Baseline = {
        usage: { cpuMicros: yield* cgroup.cpu },
        isFresh: true,
        cachedBytes: 0
      }
      return baseline
    }),
    forget: () => {
      waiting = undefined
    },
    sample: () => Effect.void,
    count: Effect.fnUntraced(function*() {
      const cpuMicros = yield* cgroup.cpu
      const { systemMicros, userMicros, pidsRefused, ...counted } = yield* Effect.orElseSucceed(
        link.measure,
        () => ({}) as Partial<Effect.Success<GuestLink["measure"]>>
      )
      return {
        // The guest's times tell how the host's divide.
        usage: {
          cpuMicros,
          cpuUserMicros: userMicros,
          cpuSystemMicros: systemMicros,
          pidsMaxHits: pidsRefused,
          ...counted
        },
        left: {},
        oomVictim: undefined
      }
    }),
    observe: Effect.map(cgroup.now, ({ cpuMicros, memoryBytes }) => ({
      cpuMicros,
      ...(memoryBytes === undefined ? {} : { memoryBytes })
    }))
  }
  return meter
})
