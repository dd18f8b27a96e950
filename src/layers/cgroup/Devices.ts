/** Block devices of this host, as limits of I/O are set on them: whole disks, by `MAJOR:MINOR`. */
import { existsSync, readdirSync, readFileSync, realpathSync, statSync } from "node:fs"
import { basename, dirname, join } from "node:path"

export interface Device {
  /** As in /sys/block. */
  readonly name: string
  /** `MAJOR:MINOR`. */
  readonly number: string
}

/** A name that is no device limits can be set on. */
export interface NoDevice {
  readonly path: string
  readonly reason: string
}

const SYS = "/sys"

/** Disks that are hardware, also virtual hardware: what is stacked on them (dm, md, loop) comes to them in the end. */
export const disks = (sys = SYS): ReadonlyArray<Device> => {
  try {
    return readdirSync(join(sys, "block")).toSorted().flatMap((name) => {
      const directory = join(sys, "block", name)
      return existsSync(join(directory, "device"))
        ? [{ name, number: readFileSync(join(directory, "dev"), "utf8").trim() }]
        : []
    })
  } catch {
    return []
  }
}

/** The disk that a device node is, or of which it is a partition: the kernel has limits for whole ones only. */
export const diskOf = (path: string, sys = SYS): Device | NoDevice => {
  try {
    const stat = statSync(path)
    if (!stat.isBlockDevice()) return { path, reason: "it is no block device" }
    // gnu_dev_major and gnu_dev_minor of the C library.
    const major = ((stat.rdev / 2 ** 8) & 0xfff) | ((stat.rdev / 2 ** 32) & ~0xfff)
    const minor = (stat.rdev & 0xff) | ((stat.rdev / 2 ** 12) & ~0xff)
    const directory = realpathSync(join(sys, "dev/block", `${major}:${minor}`))
    const whole = existsSync(join(directory, "partition")) ? dirname(directory) : directory
    return { name: basename(whole), number: readFileSync(join(whole, "dev"), "utf8").trim() }
  } catch (cause) {
    return { path, reason: cause instanceof Error ? cause.message : String(cause) }
  }
}

/** Whether weights mean anything on it: its scheduler is BFQ, or io.cost is on (a line of the root's `io.cost.qos`). */
export const isWeighed = ({ name, number }: Device, sys = SYS): boolean => {
  const read = (path: string) => {
    try {
      return readFileSync(join(sys, path), "utf8")
    } catch {
      return ""
    }
  }
  return read(`block/${name}/queue/scheduler`).includes("[bfq]") ||
    read("fs/cgroup/io.cost.qos").split("\n").some((line) => line.startsWith(`${number} enable=1`))
}
