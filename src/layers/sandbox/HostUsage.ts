/** What a phase used, from what its cgroup counted before, meanwhile and after. */
import { Effect } from "effect"
import type { Phase } from "../../schemas/Program.ts"
import type { Observation, PhaseUsage } from "../../schemas/Usage.ts"
import type { Cgroup, CgroupMemory, CgroupUsage } from "../cgroup/Cgroup.ts"

/** The counters when a phase began. */
export interface Baseline {
  readonly usage: CgroupUsage
  /** The kernel counts the peak of memory from here on. */
  readonly isFresh: boolean
  /** Page cache charged to it: what a compiler has read; the program is not to blame for it. */
  readonly cachedBytes: number
}

export const baselineOf = Effect.fnUntraced(function*(cgroup: Cgroup) {
  const isFresh = yield* cgroup.resetPeak
  const baseline: Baseline = {
    isFresh,
    usage: yield* cgroup.usage,
    cachedBytes: (yield* cgroup.memory).cacheBytes ?? 0
  }
  return baseline
})

/** The kernel counts user and system time in ticks, so they are shares of the time it counts in nanoseconds. */
const shares = (total: number | undefined, user: number | undefined, system: number | undefined) => {
  if (total === undefined || user === undefined || system === undefined) return { user: undefined, system: undefined }
  const whole = user + system
  const share = whole === 0 ? 0 : Math.round((total * user) / whole)
  return { user: share, system: total - share }
}

const difference = (after: number | undefined, before: number | undefined) =>
  after === undefined ? undefined : Math.max(0, after - (before ?? 0))

const known = <A extends object>(measured: A) =>
  Object.fromEntries(Object.entries(measured).filter(([, value]) => value !== undefined))

const filesOf = ({ cacheBytes, tmpfsBytes }: CgroupMemory) =>
  cacheBytes === undefined || tmpfsBytes === undefined ? undefined : cacheBytes + tmpfsBytes

/** The largest parts of memory that were seen while a phase ran. */
export interface MemoryParts {
  anonBytes: number
  fileBytes: number
}

/** How long after the phase's begin, and after each other, its memory is looked at: what lives shorter may be missed. */
const SAMPLES_MS = [20, 30, 50, 100, 200]
const SAMPLE_MS = 500

/** Looks at the parts of a group's memory now and then, until it is interrupted or the group is gone. */
export const sample = Effect.fnUntraced(function*(cgroup: Cgroup, parts: MemoryParts) {
  for (let index = 0;; index++) {
    yield* Effect.sleep(SAMPLES_MS[index] ?? SAMPLE_MS)
    const memory = yield* cgroup.memory
    parts.anonBytes = Math.max(parts.anonBytes, memory.anonBytes ?? 0)
    parts.fileBytes = Math.max(parts.fileBytes, filesOf(memory) ?? 0)
  }
}, (sampling) => Effect.ignore(sampling))

/** All that is known when a phase has ended. */
export interface Ended {
  readonly phase: Phase
  readonly wallMicros: number
  readonly before: Baseline
  readonly after: CgroupUsage
  /** What is left of its memory now that nobody of the phase is alive. */
  readonly left: CgroupMemory
  readonly parts: MemoryParts
  /** The largest process, in the guest's words. */
  readonly maxRssBytes: number
  readonly ownPids: number
  readonly oomVictim: string | undefined
}

/**
 * The whole's peak is the kernel's. Of the parts, file memory stays when the processes are gone, so what the peak had
 * beyond it was theirs; where it did not stay (the kernel dropped cache for want of memory), the samples tell.
 */
const memoryOf = ({ after, before, left, maxRssBytes, parts, phase }: Ended) => {
  const isCompile = phase.name === "compile"
  const cached = isCompile ? 0 : before.cachedBytes
  const whole = difference(after.memoryPeakBytes, cached)
  if (whole === undefined) return { whole, anon: undefined, file: undefined }
  const files = filesOf(left)
  // Cgroup v2 before Linux 6.12 cannot begin its peak again. One above what it was is this phase's own; else that phase was
  // smaller than what came before it, and what was seen of it has to do.
  const isOwn = before.isFresh || isCompile || (after.memoryPeakBytes ?? 0) > (before.usage.memoryPeakBytes ?? 0)
  const seen = Math.max(maxRssBytes, parts.anonBytes + parts.fileBytes, files ?? 0)
  const peak = isOwn ? whole : Math.min(whole, seen)
  if (files === undefined) return { whole: peak, anon: undefined, file: undefined }
  const file = Math.max(0, Math.max(parts.fileBytes, files) - cached)
  const beyond = isOwn ? peak - Math.max(0, files - cached) : 0
  return { whole: peak, anon: Math.min(peak, Math.max(parts.anonBytes, beyond)), file: Math.min(peak, file) }
}

/** Counters since the phase's beginning, peaks as they stand. */
export const phaseUsage = (ended: Ended): PhaseUsage => {
  const { after, before: { usage: before }, oomVictim, ownPids, phase, wallMicros } = ended
  const cpuMicros = difference(after.cpuMicros, before.cpuMicros)
  const { system, user } = shares(
    cpuMicros,
    difference(after.cpuUserMicros, before.cpuUserMicros),
    difference(after.cpuSystemMicros, before.cpuSystemMicros)
  )
  const { anon, file, whole } = memoryOf(ended)
  const pressure = known({
    cpuMicros: difference(after.cpuPressureMicros, before.cpuPressureMicros),
    memoryMicros: difference(after.memoryPressureMicros, before.memoryPressureMicros),
    ioMicros: difference(after.ioPressureMicros, before.ioPressureMicros)
  })
  return {
    phase: phase.name,
    wallMicros,
    ...known({
      cpuMicros,
      cpuUserMicros: user,
      cpuSystemMicros: system,
      memoryPeakBytes: whole,
      memoryAnonPeakBytes: anon,
      memoryFilePeakBytes: file,
      pidsPeak: after.pidsPeak === undefined ? undefined : Math.max(0, after.pidsPeak - ownPids),
      pidsRefused: difference(after.pidsMaxHits, before.pidsMaxHits),
      ioReadBytes: difference(after.ioReadBytes, before.ioReadBytes),
      ioWriteBytes: difference(after.ioWriteBytes, before.ioWriteBytes),
      throttledMicros: difference(after.throttledMicros, before.throttledMicros),
      oomKills: difference(after.oomKills, before.oomKills),
      oomVictim
    }),
    ...(Object.keys(pressure).length === 0 ? {} : { pressure })
  }
}

/** What a group uses now, for people who look; `ownPids` of its processes are not the job's. */
export const observe = Effect.fnUntraced(function*(cgroup: Cgroup, ownPids: number) {
  const { pids, ...now } = yield* cgroup.now
  const { ioReadBytes, ioWriteBytes, throttledMicros } = yield* cgroup.usage
  const memory = yield* cgroup.memory
  const pressure = known(yield* cgroup.pressure)
  const observation: Observation = {
    ...known({
      ...now,
      pids: pids === undefined ? undefined : Math.max(0, pids - ownPids),
      throttledMicros,
      ioReadBytes,
      ioWriteBytes,
      memoryAnonBytes: memory.anonBytes,
      memoryFileBytes: filesOf(memory)
    }),
    ...(Object.keys(pressure).length === 0 ? {} : { pressure })
  }
  return observation
})
