/**
 * The jail of one machine: a folder of its own with what Firecracker may see, made before the jailer runs, and the command
 * line that puts Firecracker there. All of it lies in the machine's folder and goes with it.
 */
import { basename, join } from "node:path"
import { parseMounts } from "../../cgroup/Mounts.ts"
import type { MachineSpec } from "../Vmm.ts"
import { jailPaths } from "./Requests.ts"

/** Of Firecracker's descriptors: a guest's connections by vsock are among them. */
const MOST_FILES = 1024

/** What it may write beside disks and snapshots, in bytes: its metrics grow by 6 KiB in a minute. */
const OWN_FILE_BYTES = 16 * 1024 * 1024

export interface JailFolders {
  /** What the jailer calls `--chroot-base-dir`. */
  readonly base: string
  /** `/` of the VMM. */
  readonly root: string
  /** The folder of its sockets. */
  readonly run: string
}

/** `program`: the real path of Firecracker, after whose file the jailer names a folder. */
export const foldersOf = (spec: Pick<MachineSpec, "id" | "directory">, program: string): JailFolders => {
  const base = join(spec.directory, "jail")
  const root = join(base, basename(program), spec.id, "root")
  return { base, root, run: join(root, "run") }
}

/**
 * How the jailer is to treat cgroups: the process is in the machine's already. Where that is a cgroup of version 2 the jailer
 * is told so, because it would move itself to one that is called after the program, if there is such a one. With version 1
 * and no value to set it moves nothing.
 */
export const cgroupArgs = (procsFiles: ReadonlyArray<string>, mountinfo: string): ReadonlyArray<string> => {
  const [file, ...others] = procsFiles
  const mount = file === undefined || others.length > 0
    ? undefined
    : parseMounts(mountinfo).find(({ mountPoint, version }) => version === "v2" && file.startsWith(`${mountPoint}/`))
  if (file === undefined || mount === undefined) return ["--cgroup-version", "1"]
  const parent = file.slice(mount.mountPoint.length + 1, -"/cgroup.procs".length)
  return ["--cgroup-version", "2", "--parent-cgroup", parent]
}

export interface JailerCommand {
  readonly jailer: string
  /** The real path of Firecracker. */
  readonly program: string
  readonly spec: Pick<MachineSpec, "id" | "directory" | "uid" | "gid" | "netns" | "procsFiles">
  /** Of this process: which cgroups are mounted where. */
  readonly mountinfo: string
  /** The largest file it has to write: its disk, or its memory when it is to be saved. Bytes. */
  readonly fileBytes: number
}

/**
 * Program and arguments that become Firecracker. The process namespace is made by `unshare`, which stays: with the jailer's
 * `--new-pid-ns` the process that was started ends at once, and with it what connects Firecracker to us.
 */
export const command = (
  { fileBytes, jailer, mountinfo, program, spec }: JailerCommand
): ReadonlyArray<string> => [
  "unshare",
  "--pid",
  "--fork",
  "--kill-child",
  "--",
  jailer,
  "--id",
  spec.id,
  "--exec-file",
  program,
  "--uid",
  `${spec.uid}`,
  "--gid",
  `${spec.gid}`,
  "--chroot-base-dir",
  foldersOf(spec, program).base,
  "--netns",
  spec.netns,
  ...cgroupArgs(spec.procsFiles, mountinfo),
  "--resource-limit",
  `no-file=${MOST_FILES}`,
  "--resource-limit",
  `fsize=${fileBytes + OWN_FILE_BYTES}`,
  "--",
  "--api-sock",
  jailPaths.socket
]

/** What a process is to a machine: its VMM or what will become it, or what waits for that. By its user, or how it was started. */
export type Role = "vmm" | "waiter" | "none"

/** `status` and `cmdline` are those of /proc; a zombie is nothing any more, unless threads of it live. */
export const roleOf = (spec: Pick<MachineSpec, "id" | "uid">, status: string, cmdline: string): Role => {
  if (/^State:\tZ/m.test(status) && /^Threads:\t[01]$/m.test(status)) return "none"
  if (new RegExp(`^Uid:\\t${spec.uid}\\t`, "m").test(status)) return "vmm"
  if (!cmdline.includes(`\u0000--id\u0000${spec.id}\u0000`)) return "none"
  return cmdline.startsWith("unshare\u0000") ? "waiter" : "vmm"
}
