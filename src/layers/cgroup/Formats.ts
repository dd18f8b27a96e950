/**
 * Texts of the kernel's control files. Formats: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/ of Linux.
 */

import type { IoMax } from "./Cgroup.ts"

type IoRates = Omit<IoMax, "devices">

/** A file that is one number, in its own unit; undefined for no file or "max". */
export const number = (text: string | undefined): number | undefined => {
  if (text === undefined || !/^\s*\d+\s*$/.test(text)) return undefined
  return Number(text)
}

/** `<key> <number>` per line: cpu.stat, memory.stat, memory.events, pids.events, v1 memory.oom_control, cpuacct.stat. */
export const flatKeyed = (text: string | undefined): ReadonlyMap<string, number> => {
  const values = new Map<string, number>()
  for (const line of (text ?? "").split("\n")) {
    const [key, value] = line.split(" ")
    const parsed = number(value)
    if (key !== undefined && parsed !== undefined) values.set(key, parsed)
  }
  return values
}

/** `cgroup.procs`. A 0 stands for a process outside our pid namespace; kill(0) would hit ourselves, so it is left out. */
export const pids = (text: string | undefined): ReadonlyArray<number> =>
  (text ?? "").split("\n").map(Number).filter((pid) => pid > 0)

/** Bytes read and written over all devices; undefined for no file. */
export interface IoBytes {
  readonly read: number | undefined
  readonly write: number | undefined
}

/** v2 `io.stat`: `254:0 rbytes=1 wbytes=2 rios=3 ...` per device, no line before the first transfer. */
export const ioStat = (text: string | undefined): IoBytes => ({
  read: text === undefined ? undefined : sum(text, /\brbytes=(\d+)/g),
  write: text === undefined ? undefined : sum(text, /\bwbytes=(\d+)/g)
})

/** v1 `blkio.throttle.io_service_bytes`: `254:0 Read 1`, `254:0 Write 2`, ... per device. */
export const ioServiceBytes = (text: string | undefined): IoBytes => ({
  read: text === undefined ? undefined : sum(text, /^\d+:\d+ Read (\d+)$/gm),
  write: text === undefined ? undefined : sum(text, /^\d+:\d+ Write (\d+)$/gm)
})

const sum = (text: string, pattern: RegExp) =>
  [...text.matchAll(pattern)].reduce((total, match) => total + Number(match[1]), 0)

/** The line "some" of a pressure file (Documentation/accounting/psi.rst). Undefined for no file. */
export const pressure = (text: string | undefined) => {
  const match = /^some avg10=([\d.]+) .*total=(\d+)$/m.exec(text ?? "")
  return match === null ? undefined : { part: Number(match[1]) / 100, micros: Number(match[2]) }
}

/** One device's line of v2 `io.max`. */
export const ioMax = (device: string, limits: IoRates): string =>
  [
    device,
    `rbps=${limit(limits.readBytesPerSec ?? Infinity, "max")}`,
    `wbps=${limit(limits.writeBytesPerSec ?? Infinity, "max")}`,
    `riops=${limit(limits.readsPerSec ?? Infinity, "max")}`,
    `wiops=${limit(limits.writesPerSec ?? Infinity, "max")}`
  ].join(" ")

/** The same as v1 has it: a file for each rate, 0 for none. */
export const throttles = (limits: IoRates): ReadonlyArray<readonly [file: string, rate: number]> => [
  ["blkio.throttle.read_bps_device", limits.readBytesPerSec ?? 0],
  ["blkio.throttle.write_bps_device", limits.writeBytesPerSec ?? 0],
  ["blkio.throttle.read_iops_device", limits.readsPerSec ?? 0],
  ["blkio.throttle.write_iops_device", limits.writesPerSec ?? 0]
]

/** Length of a CPU bandwidth period in microseconds, the kernel's default in both versions. */
export const cpuPeriodMicros = 100_000

/** Cores as microseconds in each period; "unlimited" is the word of that version. The kernel's minimum is 1 ms. */
export const cpuQuota = (cpus: number, unlimited: "max" | "-1"): string =>
  Number.isFinite(cpus) ? `${Math.max(1000, Math.round(cpus * cpuPeriodMicros))}` : unlimited

/** A number of bytes or of processes, whole; "unlimited" is the word of that version. */
export const limit = (value: number, unlimited: "max" | "-1"): string =>
  Number.isFinite(value) ? `${Math.floor(value)}` : unlimited

/** v1 `cpu.shares` of a v2 weight, as the kernel itself maps them (sched_weight_from_cgroup): 100 is 1024. */
export const cpuShares = (weight: number): number => Math.max(2, Math.min(262_144, Math.round(weight * 1024 / 100)))

/**
 * User and system time of an exact total, in the proportion of the two tick counts, as the kernel does it for v2's
 * cpu.stat (cputime_adjust). Undefined until there was a tick: then nothing is known of the proportion.
 */
export const splitCpu = (total: number, user: number | undefined, system: number | undefined) => {
  if (user === undefined || system === undefined || user + system === 0) return undefined
  const userMicros = Math.round(total * user / (user + system))
  return { user: userMicros, system: total - userMicros }
}
