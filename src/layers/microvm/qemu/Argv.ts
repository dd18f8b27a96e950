/**
 * The command line of one machine, as it is inside of its jail: paths are the jail's, so all machines of a size have the
 * same. Whatever is changed here makes another machine: `revision` below is part of the identity of snapshots.
 */
import { createHash } from "node:crypto"
import type { Rates } from "../../../schemas/SandboxClass.ts"
import { MAC, type MachineSpec, TAP } from "../Vmm.ts"

export type Accelerator = "kvm" | "tcg"

/** What the machine sees of the host's files, and the descriptors that `confine` opens. */
export const KERNEL = "/kernel"
export const INITRD = "/initrd"
export const ROOT = "/root.ext4"
export const SCRATCH = "/scratch.img"
/** `lookonly` knows it, too. */
export const MEMORY = "/memory"
export const STATE_SOCKET = "/state.sock"
const TAP_FD = 3
/** A snapshot's state. */
export const STATE_FD = 4

/** The end of what the guest wrote on its console, in bytes; a power of two. */
export const CONSOLE_BYTES = 16 * 1024

/** `none`: the kernel's. `template`: the file gets what the machine writes. `snapshot`: the machine begins with the file's. */
export type Memory = "none" | "template" | "snapshot"

export interface Options {
  /** Absolute, of the jail, which has the host's /usr. */
  readonly program: string
  readonly accelerator: Accelerator
  /** Of this processor. */
  readonly tscKhz: number
  readonly memory: Memory
}

/** Of a machine whose counter of time is the host's, and which has no other clock to measure it against. */
const clockArgs = ({ accelerator, tscKhz }: Options) =>
  accelerator === "tcg" ? [`tsc_early_khz=${tscKhz}`, "tsc=reliable", "mitigations=off"] : []

const throttling = (rates: Rates | undefined) => {
  if (rates === undefined) return ""
  const { burstBytes, burstOps, bytesPerSec, opsPerSec } = rates
  // QEMU's burst is a rate for a second, no lower than the other one.
  const one = (name: string, rate: number | undefined, burst: number | undefined) =>
    rate === undefined
      ? []
      : [`${name}=${rate}`, ...(burst === undefined ? [] : [`${name}-max=${Math.max(burst, rate)}`])]
  const options = [...one("bps-total", bytesPerSec, burstBytes), ...one("iops-total", opsPerSec, burstOps)]
  return options.length === 0
    ? ""
    : ["", ...options, "group=disks"].map((option) => option && `throttling.${option}`).join(",")
}

/** What the guest does not get written, or read, it is told; it does not stop for it. */
const drive = (id: string, file: string, options: string) => [
  "-drive",
  `id=${id},file=${file},format=raw,if=none,cache=unsafe,werror=report,rerror=report${options}`,
  "-device",
  `virtio-blk-device,drive=${id}`
]

/** Program and arguments. */
export const argv = (
  spec: Pick<MachineSpec, "bootArgs" | "diskRates" | "memoryMib" | "vcpus">,
  options: Options
): ReadonlyArray<string> => {
  const { accelerator, memory, program } = options
  const hasFile = memory !== "none"
  const kernelArgs = ["console=ttyS0", "reboot=t", "panic=-1", ...clockArgs(options), ...spec.bootArgs]
  return [
    program,
    "-M",
    `microvm,acpi=on,rtc=on,isa-serial=on,x-option-roms=off${hasFile ? ",memory-backend=ram" : ""}`,
    "-accel",
    accelerator === "tcg" ? "tcg,thread=multi,tb-size=32" : "kvm",
    "-cpu",
    accelerator === "tcg" ? "max" : "host",
    "-smp",
    String(spec.vcpus),
    "-m",
    `${spec.memoryMib}M`,
    ...hasFile
      ? [
        "-object",
        `memory-backend-file,id=ram,size=${spec.memoryMib}M,mem-path=${MEMORY},share=${
          memory === "template" ? "on" : "off"
        }`
      ]
      : [],
    "-nodefaults",
    "-no-user-config",
    "-display",
    "none",
    // Not before we hear it: the end of a guest that dies at once would be told to nobody.
    "-S",
    // At its end it stays, so that its console can be read.
    "-action",
    "reboot=shutdown,shutdown=pause,panic=pause",
    "-kernel",
    KERNEL,
    "-initrd",
    INITRD,
    "-append",
    kernelArgs.join(" "),
    ...drive("root", ROOT, `,readonly=on,file.locking=off${throttling(spec.diskRates)}`),
    ...drive("scratch", SCRATCH, throttling(spec.diskRates)),
    "-netdev",
    `tap,id=net,fd=${TAP_FD}`,
    "-device",
    `virtio-net-device,netdev=net,mac=${MAC}`,
    "-device",
    "virtio-rng-device",
    "-chardev",
    `ringbuf,id=console,size=${CONSOLE_BYTES}`,
    "-serial",
    "chardev:console",
    "-chardev",
    "stdio,id=qmp,signal=off",
    "-mon",
    "chardev=qmp,mode=control",
    "-sandbox",
    "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    ...memory === "snapshot" ? ["-incoming", "defer"] : []
  ]
}

/** How a machine is shown its files and becomes an unprivileged process (native/confine.c). */
export interface Jail {
  readonly confine: string
  /** The library that opens the memory read-only. */
  readonly lookonly: string
  readonly accelerator: Accelerator
  /** The file of a template's or snapshot's memory; absent where it has none. */
  readonly memory?: { readonly path: string; readonly writable: boolean }
  /** Where a template says its state. */
  readonly stateSocket?: string
  /** What a restored machine reads its state from. */
  readonly state?: string
}

/** What stands before the program. */
export const jailed = (
  spec: Pick<MachineSpec, "gid" | "initrd" | "kernel" | "netns" | "root" | "scratch" | "uid">,
  { accelerator, confine, lookonly, memory, state, stateSocket }: Jail
): ReadonlyArray<string> => [
  confine,
  "--netns",
  spec.netns,
  "--tap",
  TAP,
  "--uid",
  String(spec.uid),
  "--gid",
  String(spec.gid),
  "--ro",
  spec.kernel,
  KERNEL,
  "--ro",
  spec.initrd,
  INITRD,
  "--ro",
  spec.root,
  ROOT,
  "--rw",
  spec.scratch,
  SCRATCH,
  ...memory === undefined ? [] : [memory.writable ? "--rw" : "--ro", memory.path, MEMORY],
  ...memory === undefined || memory.writable ? [] : ["--preload", lookonly],
  ...stateSocket === undefined ? [] : ["--rw", stateSocket, STATE_SOCKET],
  ...state === undefined ? [] : ["--open", state],
  ...accelerator === "kvm" ? ["--dev", "/dev/kvm"] : [],
  "--"
]

/** Another one where machines differ that were made for the same spec. */
export const revision = createHash("sha256").update(
  JSON.stringify(
    (["kvm", "tcg"] as const).map((accelerator) =>
      argv({ vcpus: 1, memoryMib: 128, bootArgs: [] }, { accelerator, memory: "snapshot", program: "", tscKhz: 1 })
    )
  )
).digest("hex").slice(0, 12)
