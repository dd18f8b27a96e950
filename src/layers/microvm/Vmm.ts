/**
 * The contract of a virtual machine monitor: it boots a machine, restores one from a template, saves a template. It knows
 * nothing of jobs, networks or images; what surrounds a machine is the same whichever program runs it.
 */
import { type Effect, Schema, type Scope } from "effect"
import type { SandboxId } from "../../schemas/Ids.ts"
import type { Rates } from "../../schemas/SandboxClass.ts"
import type { Check } from "../sandbox/Sandbox.ts"

/** A machine could not be started, restored, saved or asked: at which step, and what the operator can do. */
export class VmmError extends Schema.TaggedError<VmmError>()("VmmError", {
  vmm: Schema.String,
  /** `probe`: whether this host can run machines at all. */
  step: Schema.Literals(["version", "probe", "boot", "restore", "save", "ask"]),
  reason: Schema.String,
  remedy: Schema.String,
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    return `${this.vmm} (${this.step}): ${this.reason}. ${this.remedy}`
  }
}

/** The guest's address on its tap, the same in every machine: each has a network namespace of its own. */
export const GUEST_ADDRESS = "169.254.77.2"
/** The namespace's end of the tap. */
export const HOST_ADDRESS = "169.254.77.1"
/** Bits of both addresses' network. */
export const TAP_PREFIX = 30
export const TAP = "tap0"
/** Of every machine's card. Locally administered. */
export const MAC = "06:00:a9:fe:4d:02"
/** Of the namespace's end of the tap: a restored guest remembers its template's, and would answer that for half a minute. */
export const HOST_MAC = "06:00:a9:fe:4d:01"
/** Where the guest waits for its host, on TCP and on vsock. */
export const WIRE_PORT = 7070

/** What a machine is made of. Paths are the host's, absolute. */
export interface MachineSpec {
  readonly id: SandboxId
  /** This machine's own folder, there already, below the instance's; removed with the machine. */
  readonly directory: string
  /** The unprivileged host user its VMM runs as; no other living process has it. */
  readonly uid: number
  readonly gid: number
  readonly vcpus: number
  /** Of the whole machine, a multiple of 2. */
  readonly memoryMib: number
  /** An uncompressed ELF `vmlinux` with a PVH note. */
  readonly kernel: string
  readonly initrd: string
  /** ext4 labelled `rootfs`, read-only, shared by machines. */
  readonly root: string
  /** ext4 labelled `scratch`, in `directory`, this machine's alone. */
  readonly scratch: string
  /** The namespace with `TAP` in it, as a path for `setns` from any mount namespace. */
  readonly netns: string
  /** Where its guest waits for the wire. Absent: `WIRE_PORT`. */
  readonly port?: number
  /** What the guest's init is to know (`stoker.…`); a VMM adds what it needs itself. */
  readonly bootArgs: ReadonlyArray<string>
  /** Absent: without limit. */
  readonly diskRates?: Rates
  readonly networkRates?: Rates
  /** `cgroup.procs` files of the machine's group: the VMM enters them before its first instruction. */
  readonly procsFiles: ReadonlyArray<string>
}

/** A machine's memory and devices as they were when its guest waited for its host. Immutable while clones live. */
export interface Snapshot {
  /** Its files are the VMM's own affair; `scratch.img` is the disk as it was. */
  readonly directory: string
}

/** A running VMM. Its scope kills it if it is still there, and waits for its end. */
export interface Machine {
  /** Ends when the VMM has, with its last words and the end of the guest's console as far as they are known. Never fails. */
  readonly ended: Effect.Effect<string>
  /** The end of the guest's console so far, for people: why it does not come up. Never fails, soon ends. Absent: there is none. */
  readonly console?: Effect.Effect<string>
  /**
   * Pauses it, writes `directory` (which is there, empty) but for `scratch.img`, and ends the VMM. Only for machines that
   * were booted with `forTemplate`.
   */
  readonly save: (directory: string) => Effect.Effect<Snapshot, VmmError>
}

export interface BootOptions {
  /** It will be saved: its memory lies in a file that becomes the snapshot's. Absolute path of the snapshot's folder. */
  readonly forTemplate?: string
}

/** How long each step may take, in milliseconds: an emulated machine is ten times slower than a virtual one. */
export interface Deadlines {
  /** From the start of the VMM until its guest waits for its host. */
  readonly bootMs: number
  readonly restoreMs: number
  /** The guest's answer to `personalise`. */
  readonly personaliseMs: number
  readonly saveMs: number
}

export interface Vmm {
  readonly name: "firecracker" | "qemu"
  readonly deadlines: Deadlines
  /**
   * Program, version, accelerator, processor and host kernel as one text: a snapshot taken under one text is not restored
   * under another. Fails for a version with known holes, and where the program is missing.
   */
  readonly identity: Effect.Effect<string, VmmError>
  /** The VMM runs; its guest need not be up yet. */
  readonly boot: (spec: MachineSpec, options?: BootOptions) => Effect.Effect<Machine, VmmError, Scope.Scope>
  /** The same from a snapshot taken of a machine with the same memory, cores, kernel and disks. */
  readonly restore: (spec: MachineSpec, snapshot: Snapshot) => Effect.Effect<Machine, VmmError, Scope.Scope>
  /** A copy of this machine's files that the VMM makes outside `directory` (a jail): removed after its processes. */
  readonly leftovers: (spec: Pick<MachineSpec, "id" | "directory">) => ReadonlyArray<string>
  /**
   * Program and arguments whose fd 0 and 1 become the guest's wire, once its guest listens; it ends with the wire. It waits
   * for the guest as long as `deadlineMs`, then says why on fd 2. `probe`: ends with 0 as soon as the guest listens.
   */
  readonly wire: (spec: MachineSpec, deadlineMs: number, mode?: "probe") => ReadonlyArray<string>
  /** What this host lacks, with the fix for each gap. */
  readonly check: Effect.Effect<ReadonlyArray<Check>>
}
