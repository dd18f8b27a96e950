/** Limits of a phase as its cgroup has them, and whether this host can hold them. */
import { Effect } from "effect"
import { LimitNotHeld, type Limits, needsOf } from "../../schemas/Limits.ts"
import type { SandboxClass } from "../../schemas/SandboxClass.ts"
import type { CgroupLimits, Cgroups, IoMax } from "../cgroup/Cgroup.ts"
import * as Devices from "../cgroup/Devices.ts"

/** Devices a class's limits of I/O are for. */
const devicesOf = ({ ioDevices }: SandboxClass): ReadonlyArray<Devices.Device | Devices.NoDevice> =>
  ioDevices === undefined ? Devices.disks() : ioDevices.map((path) => Devices.diskOf(path))

const refuse = (limit: string, reason: string, remedy: string) =>
  Effect.fail(new LimitNotHeld({ limit, reason, remedy }))

/** Fails for the first limit that this host would not hold. */
export const accepts = (cgroups: Cgroups["Service"]) =>
  Effect.fnUntraced(function*(sandboxClass: SandboxClass, limits: Limits) {
    const needs = needsOf(limits)
    if (needs.size === 0) return
    for (const [need, limit] of needs) {
      if (!cgroups.holds.has(need)) {
        const { reason, remedy } = cgroups.lacks(need)
        return yield* refuse(limit, reason, remedy)
      }
    }
    const limit = needs.get("io-max") ?? needs.get("io-weight")
    if (limit === undefined) return
    const devices = devicesOf(sandboxClass)
    if (devices.length === 0) {
      return yield* refuse(limit, "this host shows no disk of its own", "Name the class's ioDevices, or leave it out.")
    }
    for (const device of devices) {
      if ("reason" in device) {
        return yield* refuse(limit, `${device.path}: ${device.reason}`, "Correct the class's ioDevices.")
      }
      if (needs.has("io-weight") && !Devices.isWeighed(device)) {
        return yield* refuse(
          needs.get("io-weight") ?? limit,
          `weights mean nothing on ${device.name}, whose scheduler is not BFQ`,
          `echo bfq > /sys/block/${device.name}/queue/scheduler, or leave it out.`
        )
      }
    }
  })

/** What of the limits is the same for all phases of a sandbox. */
export interface Frame {
  /** Processes in the cgroup that are not the job's: the guest, and a runtime that waits for it. */
  readonly ownPids: number
  /** What those take of memory, so that the job has all of its own. */
  readonly ownMemoryBytes?: number
  readonly sandboxClass: SandboxClass
}

const ioMaxOf = (limits: Limits, sandboxClass: SandboxClass): IoMax | undefined =>
  needsOf(limits).has("io-max")
    ? {
      devices: devicesOf(sandboxClass).flatMap((device) => "number" in device ? [device.number] : []),
      readBytesPerSec: limits.ioReadBytesPerSec,
      writeBytesPerSec: limits.ioWriteBytesPerSec,
      readsPerSec: limits.ioReadsPerSec,
      writesPerSec: limits.ioWritesPerSec
    }
    : undefined

/** All that a fresh cgroup does not have by itself. */
export const cgroupLimits = (limits: Limits, { ownMemoryBytes = 0, ownPids, sandboxClass }: Frame): CgroupLimits => ({
  memoryBytes: limits.memoryBytes + ownMemoryBytes,
  swapBytes: limits.swapBytes ?? 0,
  pids: limits.pids + ownPids,
  cpus: limits.cpus,
  cpuWeight: (limits.cpuWeight ?? 100) === 100 ? undefined : limits.cpuWeight,
  memoryHighBytes: limits.memoryHighBytes === undefined ? undefined : limits.memoryHighBytes + ownMemoryBytes,
  oomGroup: limits.oomGroup === true ? true : undefined,
  ioWeight: (limits.ioWeight ?? 100) === 100 ? undefined : limits.ioWeight,
  ioMax: ioMaxOf(limits, sandboxClass),
  cpuset: sandboxClass.cpuset
})

const sameRates = (one: IoMax | undefined, other: IoMax | undefined) => JSON.stringify(one) === JSON.stringify(other)

/**
 * What has to be written to come from one to the other; undefined for nothing. What the new ones leave out goes back to
 * what a fresh group has: the next phase does not inherit it.
 */
export const changes = (from: CgroupLimits | undefined, to: CgroupLimits): CgroupLimits | undefined => {
  const memory = from?.memoryBytes !== to.memoryBytes || from?.swapBytes !== to.swapBytes
  const changed: CgroupLimits = {
    // They go together: on v1 the second bounds the sum.
    ...(memory ? { memoryBytes: to.memoryBytes, swapBytes: to.swapBytes } : {}),
    ...(from?.pids === to.pids ? {} : { pids: to.pids }),
    ...(from?.cpus === to.cpus ? {} : { cpus: to.cpus }),
    ...(from?.cpuWeight === to.cpuWeight ? {} : { cpuWeight: to.cpuWeight ?? 100 }),
    ...(from?.memoryHighBytes === to.memoryHighBytes
      ? {}
      : { memoryHighBytes: to.memoryHighBytes ?? Number.POSITIVE_INFINITY }),
    ...(from?.oomGroup === to.oomGroup ? {} : { oomGroup: to.oomGroup ?? false }),
    ...(from?.ioWeight === to.ioWeight ? {} : { ioWeight: to.ioWeight ?? 100 }),
    ...(sameRates(from?.ioMax, to.ioMax) ? {} : { ioMax: to.ioMax ?? { devices: from?.ioMax?.devices ?? [] } }),
    ...(from?.cpuset === to.cpuset ? {} : { cpuset: to.cpuset })
  }
  return Object.keys(changed).length === 0 ? undefined : changed
}
