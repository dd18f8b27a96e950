/** What a failed system call says to a person. */
import { Predicate } from "effect"

/** The errno's name (`ENOSPC`) of what node:fs and node:net fail with; `unknown` for anything else. */
export const codeOf = (cause: unknown): string =>
  Predicate.hasProperty(cause, "code") && typeof cause.code === "string" ? cause.code : "unknown"

/** Its text, e.g. `ENOSPC: no space left on device, write`. */
export const textOf = (cause: unknown): string => cause instanceof Error ? cause.message : String(cause)

const remedies: Readonly<Record<string, string>> = {
  ENOSPC: "Free space or inodes there, or move the state directory to a larger disk",
  EDQUOT: "Raise the disk quota of the worker's user",
  EACCES: "Run the worker as the user the directory belongs to",
  EPERM: "Run the worker as the user the directory belongs to",
  EROFS: "Choose a state directory on a file system that can be written",
  EMFILE: "Raise the limit of open files (ulimit -n)",
  ENFILE: "Raise the machine's limit of open files (sysctl fs.file-max)",
  ENOTDIR: "Remove the file that stands where the directory should be",
  EIO: "The disk or its file system is damaged: see the kernel's log"
}

/** What the operator can do about a failure below `path`. */
export const remedyOf = (cause: unknown, path: string): string =>
  remedies[codeOf(cause)] ?? `Look at ${path} and the kernel's log`
