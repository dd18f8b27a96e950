/** How large a class's machines are, and what their VMMs may take of the host. */
import type { Rates, SandboxClass } from "../../../schemas/SandboxClass.ts"
import type { CgroupLimits } from "../../cgroup/Cgroup.ts"

const MiB = 1024 * 1024

/** The guest's kernel, init and what it reads of its root, so that a job has all of its own. */
const KERNEL_MIB = 96
/** The kernel's own account of each page. */
const PAGES = 1 / 50

/** What a VMM takes beside its machine's memory: emulation keeps the code it has made. */
const OWN_MIB = { firecracker: 128, qemu: 288 } as const
/** Threads beside the processors': QEMU's pool for disks has 64. The wire, too. */
const OWN_PIDS = { firecracker: 24, qemu: 128 } as const

export type MachineDriver = keyof typeof OWN_MIB

export const vcpusOf = ({ ceiling, machine }: SandboxClass): number =>
  machine?.vcpus ?? Math.max(1, Math.min(32, Math.ceil(ceiling.cpus)))

/** Of the whole machine, an even number: Firecracker's huge pages want that. */
export const memoryMibOf = ({ ceiling }: SandboxClass): number =>
  2 * Math.ceil((ceiling.memoryBytes / MiB * (1 + PAGES) + KERNEL_MIB) / 2)

/** What the VMM's own cgroup has, whatever phases run inside. */
export const cgroupLimitsOf = (driver: MachineDriver, sandboxClass: SandboxClass): CgroupLimits => ({
  memoryBytes: (memoryMibOf(sandboxClass) + OWN_MIB[driver]) * MiB,
  swapBytes: 0,
  pids: OWN_PIDS[driver] + vcpusOf(sandboxClass),
  cpus: vcpusOf(sandboxClass),
  cpuset: sandboxClass.cpuset
})

/** What the old worker set for each of its drives: 1 MiB in half a second, 100 operations in one; each at once after a rest. */
const codebench: Rates = { bytesPerSec: 2 * MiB, burstBytes: MiB, opsPerSec: 100, burstOps: 100 }

/** As fields of a `MachineSpec`. */
export const ratesOf = ({ machine }: SandboxClass): { readonly diskRates?: Rates; readonly networkRates?: Rates } => {
  const { diskRates, networkRates } = machine ?? {}
  return {
    ...(diskRates === undefined ? {} : { diskRates: diskRates === "codebench" ? codebench : diskRates }),
    ...(networkRates === undefined ? {} : { networkRates })
  }
}
