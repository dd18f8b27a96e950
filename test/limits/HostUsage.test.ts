/** What a phase used, worked out of what the kernel counts: kernels that cannot begin a peak again, too. */
import { assert, describe, it } from "@effect/vitest"
import { phaseUsage } from "../../src/layers/sandbox/HostUsage.ts"
import { standardDefaults } from "../../src/schemas/Limits.ts"

const MiB = 2 ** 20

interface Case {
  readonly isFresh: boolean
  readonly peakBefore: number
  readonly peakAfter: number
  readonly filesLeft: number
  readonly seenAnon?: number
  readonly maxRss?: number
}

const memoryOf = ({ filesLeft, isFresh, maxRss = 0, peakAfter, peakBefore, seenAnon = 0 }: Case) => {
  const usage = phaseUsage({
    phase: { name: "run", argv: ["x"], env: {}, stdin: new Uint8Array(), limits: standardDefaults },
    wallMicros: 1,
    before: { isFresh, cachedBytes: 0, usage: { cpuMicros: 0, memoryPeakBytes: peakBefore * MiB } },
    after: { cpuMicros: 10, memoryPeakBytes: peakAfter * MiB },
    left: { anonBytes: 0, cacheBytes: 0, tmpfsBytes: filesLeft * MiB },
    parts: { anonBytes: seenAnon * MiB, fileBytes: 0 },
    maxRssBytes: maxRss * MiB,
    ownPids: 2,
    oomVictim: undefined
  })
  const whole = (bytes: number | undefined) => (bytes ?? Number.NaN) / MiB
  return [usage.memoryPeakBytes, usage.memoryAnonPeakBytes, usage.memoryFilePeakBytes].map(whole)
}

describe("peak memory and its parts", () => {
  it("what the peak had beyond the files that are left was the processes'", () => {
    assert.deepStrictEqual(memoryOf({ isFresh: true, peakBefore: 2, peakAfter: 100, filesLeft: 40 }), [100, 60, 40])
    assert.deepStrictEqual(memoryOf({ isFresh: true, peakBefore: 2, peakAfter: 100, filesLeft: 40, seenAnon: 80 }), [
      100,
      80,
      40
    ])
  })

  it("a peak that cannot begin again is the phase's own if it rose", () => {
    assert.deepStrictEqual(memoryOf({ isFresh: false, peakBefore: 2, peakAfter: 42, filesLeft: 40, maxRss: 1 }), [
      42,
      2,
      40
    ])
  })

  it("and else no more than what was seen of the phase", () => {
    assert.deepStrictEqual(
      memoryOf({ isFresh: false, peakBefore: 90, peakAfter: 90, filesLeft: 4, maxRss: 10, seenAnon: 8 }),
      [10, 8, 4]
    )
    assert.deepStrictEqual(memoryOf({ isFresh: false, peakBefore: 9, peakAfter: 9, filesLeft: 4, maxRss: 10 }), [
      9,
      0,
      4
    ])
  })
})
