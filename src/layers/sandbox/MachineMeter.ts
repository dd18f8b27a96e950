/**
 * Phases of a machine: its own kernel holds them to their limits and counts what they use, by the guest's word. Time is the
 * host's: what the VMM took of its cores, with the machine's kernel and its devices.
 */
import { Effect, Stream } from "effect"
import type { Limits } from "../../schemas/Limits.ts"
import { baseEnv } from "../../schemas/Program.ts"
import type { Cgroup, CgroupUsage } from "../cgroup/Cgroup.ts"
import type { GroupLimits, GuestLink } from "./GuestLink.ts"
import type * as HostUsage from "./HostUsage.ts"
import type { Meter } from "./Meter.ts"
import { SandboxLost, type SandboxRefused } from "./Sandbox.ts"

const guestLimits = ({ cpus, memoryBytes, pids }: Limits): GroupLimits => ({ memoryBytes, pids, cpus })

const isSame = (one: GroupLimits, other: GroupLimits) =>
  one.memoryBytes === other.memoryBytes && one.pids === other.pids && one.cpus === other.cpus

/** Nothing runs without its limits. */
const unheld = (driver: string) => (error: SandboxLost | SandboxRefused) =>
  error._tag === "SandboxLost"
    ? error
    : new SandboxLost({
      driver,
      reason: `its guest does not hold limits: ${error.reason}`,
      remedy: "Its kernel needs cgroup v2 with memory, pids and cpu; build the image again with `stoker image build`."
    })

/** The VMM's memory is the whole machine's, and what the VMM takes: nothing that a job would know for its own. */
const observe = (cgroup: Cgroup) => Effect.map(cgroup.cpu, (cpuMicros) => ({ cpuMicros }))

/** Of a machine in which nobody holds or counts anything for us: time is all that is known. */
export const outside = (cgroup: Cgroup): Meter => ({
  enter: () => Effect.map(cgroup.cpu, (cpuMicros) => ({ usage: { cpuMicros }, isFresh: true, cachedBytes: 0 })),
  forget: () => {},
  sample: () => Effect.void,
  count: () => Effect.map(cgroup.cpu, (cpuMicros) => ({ usage: { cpuMicros }, left: {}, oomVictim: undefined })),
  observe: observe(cgroup)
})

/** Longer than any machine takes that is of use. */
const REHEARSAL_LIMIT = "5 seconds"

/**
 * A first program, as every root has it: what a kernel does for the first time after a boot or restore takes several times as
 * long (memory that comes from a file, code to be translated), and no job should wait for that. What comes of it is no matter.
 */
const rehearse = (link: GuestLink, { fileBytes, openFiles }: Limits) =>
  link.run(
    { cwd: "", argv: ["/bin/true"], env: baseEnv, limits: { fileBytes, openFiles, stackBytes: 0, cpuSeconds: 1 } },
    new Uint8Array()
  ).pipe(
    Stream.runDrain,
    Effect.timeoutOption(REHEARSAL_LIMIT),
    // A machine that was lost says so to the next one who asks.
    Effect.ignore
  )

/** `usual` are the limits most phases have: the first one finds them in force. */
export const make = Effect.fnUntraced(function*(driver: string, cgroup: Cgroup, link: GuestLink, usual: Limits) {
  const limit = (limits: GroupLimits) => Effect.mapError(link.limit(limits), unheld(driver))
  /** In force since nobody has run under them. */
  let waiting: GroupLimits | undefined = guestLimits(usual)
  yield* limit(waiting)
  yield* rehearse(link, usual)
  // Whose group counts from nothing.
  yield* limit(waiting)

  const meter: Meter = {
    enter: Effect.fnUntraced(function*({ limits }) {
      const wanted = guestLimits(limits)
      if (waiting === undefined || !isSame(waiting, wanted)) yield* limit(wanted)
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
      const counted = yield* Effect.option(link.measure)
      const cpuMicros = yield* cgroup.cpu
      if (counted._tag === "None") return { usage: { cpuMicros }, left: {}, oomVictim: undefined }
      const { pidsRefused, systemMicros, userMicros, ...words } = counted.value
      const usage: CgroupUsage = {
        cpuMicros,
        // They tell how the host's time divides.
        cpuUserMicros: userMicros,
        cpuSystemMicros: systemMicros,
        memoryPeakBytes: words.memoryPeakBytes,
        oomKills: words.oomKills,
        pidsPeak: words.pidsPeak,
        pidsMaxHits: pidsRefused,
        ioReadBytes: words.ioReadBytes,
        ioWriteBytes: words.ioWriteBytes
      }
      return { usage, left: {}, oomVictim: undefined }
    }),
    observe: observe(cgroup)
  }
  return meter
})
