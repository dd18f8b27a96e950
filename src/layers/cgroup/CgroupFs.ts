import { Effect } from "effect"
import * as Fs from "node:fs"
import { CgroupError } from "./Cgroup.ts"

/** What the kernel is asked, each throwing an errno. Tests put a plain directory that behaves like cgroupfs behind it. */
export interface Syscalls {
  readonly read: (path: string) => string
  readonly write: (path: string, value: string) => void
  readonly mkdir: (path: string) => void
  readonly rmdir: (path: string) => void
  /** Names of the directories in a directory. */
  readonly directories: (path: string) => ReadonlyArray<string>
  readonly kill: (pid: number) => void
  /** Opens a file for writing and then reading on the same descriptor: `memory.peak` resets per descriptor. */
  readonly open: (path: string) => Descriptor
}

/** A file that stays open. */
export interface Descriptor {
  readonly write: (value: string) => void
  readonly read: () => string
  readonly close: () => void
}

// cgroupfs is memory of the kernel: a call is tens of microseconds and waits for no device. The thread pool would cost
// more than that per call, and would queue a kill behind the slow disk reads of other jobs. So all of it is synchronous.
const linux: Syscalls = {
  read: (path) => Fs.readFileSync(path, "utf8"),
  // No O_CREAT: a control file that is not there must fail as ENOENT. No O_TRUNC: it means nothing to a control file.
  write: (path, value) => {
    const fd = Fs.openSync(path, Fs.constants.O_WRONLY)
    try {
      Fs.writeSync(fd, value)
    } finally {
      Fs.closeSync(fd)
    }
  },
  mkdir: (path) => Fs.mkdirSync(path),
  rmdir: (path) => Fs.rmdirSync(path),
  directories: (path) =>
    Fs.readdirSync(path, { withFileTypes: true }).filter((entry) => entry.isDirectory()).map(({ name }) => name),
  kill: (pid) => process.kill(pid, "SIGKILL"),
  open: (path) => {
    const fd = Fs.openSync(path, Fs.constants.O_RDWR)
    const buffer = Buffer.alloc(64)
    return {
      write: (value) => Fs.writeSync(fd, value),
      read: () => buffer.toString("utf8", 0, Fs.readSync(fd, buffer, 0, buffer.length, 0)),
      close: () => Fs.closeSync(fd)
    }
  }
}

/** cgroupfs as effects that fail with `CgroupError`. */
export interface CgroupFs {
  readonly read: (path: string) => Effect.Effect<string, CgroupError>
  /** Undefined if there is no such file, or no such group any more. */
  readonly readOptional: (path: string) => Effect.Effect<string | undefined, CgroupError>
  readonly write: (path: string, value: string | number) => Effect.Effect<void, CgroupError>
  readonly mkdir: (path: string) => Effect.Effect<void, CgroupError>
  readonly rmdir: (path: string) => Effect.Effect<void, CgroupError>
  /** Names of the groups directly below; none if the group is gone. */
  readonly directories: (path: string) => Effect.Effect<ReadonlyArray<string>, CgroupError>
  /** SIGKILL; a process that is already gone is a success. */
  readonly kill: (pid: number) => Effect.Effect<void, CgroupError>
  readonly open: (path: string) => Effect.Effect<Descriptor, CgroupError>
  /** Any other call, for instance on a `Descriptor`. */
  readonly attempt: <A>(operation: string, path: string, run: () => A) => Effect.Effect<A, CgroupError>
}

const remedies: Readonly<Record<string, string>> = {
  EACCES: "run the worker as root, or delegate its cgroup to its user (systemd: Delegate=yes)",
  EPERM: "run the worker as root, or delegate its cgroup to its user (systemd: Delegate=yes)",
  EROFS: "cgroupfs is mounted read-only: give the container a writable one",
  ENOENT: "the group is gone, or its controller is not enabled here",
  ENODEV: "the group is gone",
  EBUSY: "processes are still in it: kill it first",
  EEXIST: "a name is used once: let the janitor remove what is left, or take another name",
  EINVAL: "the kernel refuses this value: is the limit of a cgroup above it smaller?",
  EAGAIN: "too many cgroups: look at cgroup.max.descendants of the cgroups above",
  ENOSPC: "too many cgroups on this host: remove unused ones"
}

/** Whether a failure says that the file or its group is not there. */
export const isGone = (error: CgroupError): boolean => error.code === "ENOENT" || error.code === "ENODEV"

const codeOf = (cause: unknown) =>
  cause instanceof Error && "code" in cause && typeof cause.code === "string" ? cause.code : undefined

const failed = (operation: string, path: string, cause: unknown) => {
  const code = codeOf(cause)
  return new CgroupError({
    operation,
    path,
    reason: cause instanceof Error ? cause.message : String(cause),
    remedy: remedies[code ?? ""] ?? "the kernel's log may say more",
    ...(code === undefined ? {} : { code }),
    cause
  })
}

/** cgroupfs of this host, or of the `Syscalls` given. */
export const make = (syscalls: Syscalls = linux): CgroupFs => {
  const attempt = <A>(operation: string, path: string, run: () => A) =>
    Effect.try({ try: run, catch: (cause) => failed(operation, path, cause) })
  return {
    attempt,
    read: (path) => attempt("read", path, () => syscalls.read(path)),
    // A missing file is no failure here, so none is made: errors with their stacks cost more than the call.
    readOptional: (path) =>
      Effect.suspend(() => {
        try {
          return Effect.succeed(syscalls.read(path))
        } catch (cause) {
          const code = codeOf(cause)
          return code === "ENOENT" || code === "ENODEV" ? Effect.undefined : Effect.fail(failed("read", path, cause))
        }
      }),
    write: (path, value) => attempt(`write ${value}`, path, () => syscalls.write(path, `${value}`)),
    mkdir: (path) => attempt("mkdir", path, () => syscalls.mkdir(path)),
    rmdir: (path) => attempt("rmdir", path, () => syscalls.rmdir(path)),
    directories: (path) =>
      attempt("list", path, () => syscalls.directories(path)).pipe(Effect.catchIf(isGone, () => Effect.succeed([]))),
    kill: (pid) =>
      attempt("kill", `pid ${pid}`, () => syscalls.kill(pid)).pipe(
        Effect.catchIf((error) => error.code === "ESRCH", () => Effect.void)
      ),
    open: (path) => attempt("open", path, () => syscalls.open(path))
  }
}
