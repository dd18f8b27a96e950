/**
 * How the phases of one sandbox are held to their limits and measured. Of processes of this host both is their cgroup's; of a
 * machine's the guest's kernel holds and counts (`MachineMeter.ts`).
 */
import { Effect } from "effect"
import type { Phase } from "../../schemas/Program.ts"
import type { Observation } from "../../schemas/Usage.ts"
import type { Cgroup, CgroupError, CgroupLimits, CgroupMemory, CgroupUsage } from "../cgroup/Cgroup.ts"
import * as OomLog from "../host/OomLog.ts"
import * as HostLimits from "./HostLimits.ts"
import * as HostUsage from "./HostUsage.ts"
import type { SandboxLost, SandboxRefused } from "./Sandbox.ts"

/** The counters when a phase has ended. */
export interface Count {
  readonly usage: CgroupUsage
  /** What is left of its memory now that nobody of the phase is alive. */
  readonly left: CgroupMemory
  readonly oomVictim: string | undefined
}

export interface Meter {
  /** The phase's limits in force, and the counters before it. As little as can be while a program waits to begin. */
  readonly enter: (phase: Phase) => Effect.Effect<HostUsage.Baseline, CgroupError | SandboxLost | SandboxRefused>
  /** Something ran since that is no phase: what it used is not the next one's. */
  readonly forget: () => void
  /** Looks at memory while a phase runs, until it is interrupted. */
  readonly sample: (parts: HostUsage.MemoryParts) => Effect.Effect<void>
  /** Also of a sandbox that is lost, as far as the host can tell. */
  readonly count: (before: HostUsage.Baseline) => Effect.Effect<Count, CgroupError>
  readonly observe: Effect.Effect<Observation, CgroupError>
}

/** Of a cgroup that has these limits now, and whose counters are as they should be for a first phase. */
export const ofCgroup = Effect.fnUntraced(
  function*(cgroup: Cgroup, name: string, frame: HostLimits.Frame, limits: CgroupLimits) {
    let current = limits
    let baseline: HostUsage.Baseline | undefined = yield* HostUsage.baselineOf(cgroup)
    const meter: Meter = {
      enter: Effect.fnUntraced(function*(phase) {
        const wanted = HostLimits.cgroupLimits(phase.limits, frame)
        const changed = HostLimits.changes(current, wanted)
        if (changed !== undefined) yield* cgroup.limit(changed)
        current = wanted
        const first = baseline
        baseline = undefined
        if (first === undefined) return yield* HostUsage.baselineOf(cgroup)
        // The guest has answered questions since.
        return { ...first, usage: { ...first.usage, cpuMicros: yield* cgroup.cpu } }
      }),
      forget: () => {
        baseline = undefined
      },
      sample: (parts) => HostUsage.sample(cgroup, parts),
      count: Effect.fnUntraced(function*(before) {
        const usage = yield* cgroup.usage
        const left = yield* cgroup.memory
        const oomVictim = (usage.oomKills ?? 0) > (before.usage.oomKills ?? 0) ? OomLog.victim(name) : undefined
        return { usage, left, oomVictim }
      }),
      observe: HostUsage.observe(cgroup, frame.ownPids)
    }
    return meter
  }
)
