/** An OCI bundle (runtime-spec 1.0.2) whose pid 1 is the guest and whose root is read-only: the host's /usr or a tree. */
import { RANGE } from "../IdRanges.ts"
import type { seccompProfile } from "./SeccompProfile.ts"

export interface BundleOptions {
  /**
   * Absolute path of the root (`Roots.ts`), as crun sees it. Every parent must be searchable by the
   * sandbox's root: crun resolves the path as the mapped user.
   */
  readonly rootfs: string
  /** The skeleton has links into the host's /usr, which is bound into it. */
  readonly isHosts: boolean
  /** The runtime leaves the root's mount as it is, which is read-only already. */
  readonly isLeft?: boolean
  readonly disk: { readonly bytes: number; readonly inodes: number }
  /** Host users that the sandbox's 0–65535 are mapped to: its own, see `IdRanges.ts`. */
  readonly firstUid: number
  /** Host groups behind the sandbox's: the same for all, so that one guest in the skeleton serves all. */
  readonly firstGid: number
  readonly seccomp: NonNullable<ReturnType<typeof seccompProfile>>
  /** The same profile compiled (base64 of the kernel's filter program): saves crun most of its start-up time. */
  readonly seccompBpf: string | undefined
  /** Absent: an empty network namespace. */
  readonly network?: {
    /** The namespace, made before. */
    readonly path: string
    /** A file on the host, as crun sees it. */
    readonly resolvConf: string
  }
}

/** Where the guest lies in the skeleton. */
export const GUEST_PATH = "/.stoker/guest"

/** Where the function host lies in every root. */
export const FUNCTIONS_PATH = "/.stoker/functions"

/** The job's user inside the sandbox. */
export const JOB_UID = 1000

/** What the guest, uid 0 of the user namespace, keeps: to become the job's user, and to kill its processes. */
const guestCapabilities = ["CAP_SETUID", "CAP_SETGID", "CAP_KILL"]

const tmpfs = (destination: string, mode: string, options: ReadonlyArray<string>) => ({
  destination,
  type: "tmpfs",
  source: "tmpfs",
  options: ["nosuid", "nodev", `mode=${mode}`, ...options]
})

const hostMounts = [
  { destination: "/usr", type: "bind", source: "/usr", options: ["rbind", "ro", "nosuid", "nodev"] },
  // Debian's compilers are reached through /etc/alternatives (cc, c++, awk).
  {
    destination: "/etc/alternatives",
    type: "bind",
    source: "/etc/alternatives",
    options: ["bind", "ro", "nosuid", "nodev", "noexec"]
  }
]

/** `config.json` of the bundle. The guest reads its commands from fd 0 and answers on fd 1. */
export const bundleConfig = (options: BundleOptions) => {
  const { bytes, inodes } = options.disk
  const size = [`size=${bytes}`, `nr_inodes=${inodes}`]
  const mapped = (hostID: number) => [{ containerID: 0, hostID, size: RANGE }]
  return {
    ociVersion: "1.0.2",
    hostname: "sandbox",
    annotations: options.seccompBpf === undefined ? {} : { "run.oci.seccomp_bpf_data": options.seccompBpf },
    process: {
      terminal: false,
      user: { uid: 0, gid: 0 },
      args: [GUEST_PATH, "--work", "/work", "--uid", String(JOB_UID), "--gid", String(JOB_UID)],
      env: [],
      cwd: "/",
      noNewPrivileges: true,
      capabilities: {
        bounding: guestCapabilities,
        effective: guestCapabilities,
        permitted: guestCapabilities,
        inheritable: [],
        ambient: []
      },
      // 1, not 0: see the seccomp profile. No job runs before others because its worker may, and what it locks in memory
      // may be a page of /usr that is charged to another job.
      rlimits: [
        { type: "RLIMIT_CORE", soft: 1, hard: 1 },
        { type: "RLIMIT_RTPRIO", soft: 0, hard: 0 },
        { type: "RLIMIT_NICE", soft: 0, hard: 0 },
        { type: "RLIMIT_MEMLOCK", soft: 65_536, hard: 65_536 }
      ]
    },
    root: { path: options.rootfs, readonly: options.isLeft !== true },
    mounts: [
      { destination: "/proc", type: "proc", source: "proc", options: ["nosuid", "noexec", "nodev"] },
      {
        destination: "/dev",
        type: "tmpfs",
        source: "tmpfs",
        options: ["nosuid", "strictatime", "mode=755", "size=64k"]
      },
      tmpfs("/dev/shm", "1777", ["noexec", "size=16777216", "nr_inodes=1024"]),
      ...(options.isHosts ? hostMounts : []),
      ...(options.network === undefined ? [] : [{
        destination: "/etc/resolv.conf",
        type: "bind",
        source: options.network.resolvConf,
        options: ["bind", "ro", "nosuid", "nodev", "noexec"]
      }]),
      tmpfs("/tmp", "1777", size),
      tmpfs("/work", "0700", [...size, `uid=${JOB_UID}`, `gid=${JOB_UID}`])
    ],
    linux: {
      namespaces: ["pid", "mount", "network", "ipc", "uts", "cgroup", "user"].map((type) =>
        type === "network" && options.network !== undefined ? { type, path: options.network.path } : { type }
      ),
      uidMappings: mapped(options.firstUid),
      gidMappings: mapped(options.firstGid),
      rootfsPropagation: "private",
      seccomp: options.seccomp,
      maskedPaths: [
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/sys/firmware"
      ],
      readonlyPaths: ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
    }
  }
}
