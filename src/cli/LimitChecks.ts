/** What `stoker doctor` says of the limits that not every host can hold. */
import type { Cgroups } from "../layers/cgroup/Cgroup.ts"
import * as Devices from "../layers/cgroup/Devices.ts"
import type { Check } from "../layers/sandbox/Sandbox.ts"
import { type LimitNeed, limitNeeds, needsOf } from "../schemas/Limits.ts"
import type { SandboxClass } from "../schemas/SandboxClass.ts"

/** As the configuration file calls them. */
const names: Readonly<Record<LimitNeed, string>> = {
  "cpu-weight": "cpuWeight",
  "memory-high": "memoryHigh",
  swap: "swap",
  "oom-group": "oomGroup",
  "io-weight": "ioWeight",
  "io-max": "ioRead, ioWrite, ioReads, ioWrites"
}

const disks = () => Devices.disks().map(({ name }) => name).join(", ")

const ioOnV1: Check = {
  name: "limits of I/O",
  status: "warning",
  detail: "cgroup v1 sees direct and synchronous writes only, not those the kernel writes back later",
  remedy: "For all of them boot with cgroup v2 (systemd.unified_cgroup_hierarchy=1)."
}

/** Those of one cause in one line. */
const notHeld = (lacking: ReadonlyArray<LimitNeed>, cgroups: Cgroups["Service"]): ReadonlyArray<Check> => {
  const causes = Map.groupBy(lacking, (need) => cgroups.lacks(need).remedy)
  return [...causes].map(([remedy, of]): Check => ({
    name: "limits not held",
    status: "warning",
    detail: `${of.map((need) => names[need]).join(", ")}: ${of[0] === undefined ? "" : cgroups.lacks(of[0]).reason}`,
    remedy
  }))
}

/** What these classes ask for and would not get: told for what they may ask, and wrong for what they have by default. */
export const classLimitChecks = (
  cgroups: Cgroups["Service"],
  classes: ReadonlyArray<SandboxClass>
): ReadonlyArray<Check> =>
  classes.flatMap(({ ceiling, defaults, name }) => {
    const byDefault = needsOf(defaults)
    return [...new Map([...needsOf(ceiling), ...byDefault]).keys()].flatMap((need): ReadonlyArray<Check> => {
      const of = `limits of ${name}`
      if (need === "io-max" && cgroups.version === "v1") return [{ ...ioOnV1, name: of }]
      if (cgroups.holds.has(need)) return []
      const { reason, remedy } = cgroups.lacks(need)
      const status = byDefault.has(need) ? "missing" : "warning"
      return [{ name: of, status, detail: `${names[need]}: ${reason}`, remedy }]
    })
  })

/** A line for what holds, and one for each that does not. */
export const limitChecks = (cgroups: Cgroups["Service"]): ReadonlyArray<Check> => {
  const isV1 = cgroups.version === "v1"
  // On v1 the controller is used only by workers whose classes ask for it.
  const isHeld = (need: LimitNeed) => cgroups.holds.has(need) || (isV1 && need === "io-max")
  const weightless = cgroups.holds.has("io-weight") ? Devices.disks().filter((disk) => !Devices.isWeighed(disk)) : []
  const held: Check = {
    name: "limits",
    status: "ok",
    detail: [
      "wall, cpuTime, memory, pids, cpus, fileSize, disk, inodes, output, openFiles",
      ...limitNeeds.filter(isHeld).map((need) => names[need])
    ]
      .join(", ")
  }
  return [
    held,
    ...notHeld(limitNeeds.filter((need) => !isHeld(need)), cgroups),
    ...(isV1 ? [ioOnV1] : []),
    ...weightless.map(({ name }): Check => ({
      name: "ioWeight",
      status: "warning",
      detail: `not held on ${name}: its scheduler has no weights`,
      remedy: `echo bfq > /sys/block/${name}/queue/scheduler`
    })),
    ...(disks() === "" ? [] : [{ name: "disks", status: "ok", detail: disks() } satisfies Check])
  ]
}
