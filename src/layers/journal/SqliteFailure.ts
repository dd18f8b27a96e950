/** What SQLite and the file system refuse, in words: what happened and what to do about it. */

/** An exception as it crosses threads. */
export interface Failure {
  /** Node's or ours, e.g. `EACCES`. */
  readonly code?: string
  /** SQLite's extended result code; its lowest byte is the primary one (sqlite.org/rescode.html). */
  readonly errcode?: number
  readonly message: string
}

export interface Explanation {
  readonly reason: string
  readonly remedy: string
}

const field = (error: object, name: string): unknown => Reflect.get(error, name)

export const failureOf = (error: unknown): Failure => {
  if (typeof error !== "object" || error === null) return { message: String(error) }
  const code = field(error, "code")
  const errcode = field(error, "errcode")
  const message = field(error, "message")
  return {
    ...(typeof code === "string" ? { code } : {}),
    ...(typeof errcode === "number" ? { errcode } : {}),
    message: typeof message === "string" ? message : "unknown failure"
  }
}

type Kind =
  | "busy"
  | "full"
  | "io"
  | "damaged"
  | "refused"
  | "newer"
  | "other"
  | "memory"
  | "ended"
  | "closed"
  | "unknown"

const byCode: Readonly<Record<string, Kind>> = {
  ENOSPC: "full",
  EDQUOT: "full",
  EFBIG: "io",
  EIO: "io",
  EACCES: "refused",
  EPERM: "refused",
  EROFS: "refused",
  ENOENT: "refused",
  ENOTDIR: "refused",
  EISDIR: "refused",
  ERR_WORKER_OUT_OF_MEMORY: "memory",
  STOKER_NEWER: "newer",
  STOKER_OTHER: "other",
  STOKER_THREAD_ENDED: "ended",
  STOKER_CLOSED: "closed"
}

const byPrimary: Readonly<Record<number, Kind>> = {
  3: "refused", // SQLITE_PERM
  5: "busy",
  6: "busy", // SQLITE_LOCKED
  7: "memory", // SQLITE_NOMEM
  8: "refused", // SQLITE_READONLY
  10: "io",
  11: "damaged", // SQLITE_CORRUPT
  13: "full",
  14: "refused", // SQLITE_CANTOPEN
  23: "refused", // SQLITE_AUTH
  26: "damaged" // SQLITE_NOTADB
}

/** SQLITE_IOERR_SHMSIZE: the file beside the journal could not grow. In practice the disk is full. */
const shmSize = 4874

const kindOf = ({ code, errcode }: Failure): Kind => {
  if (errcode === shmSize) return "full"
  return (errcode === undefined ? byCode[code ?? ""] : byPrimary[errcode & 0xff]) ?? "unknown"
}

/** No room was left: some of a batch may still fit when it is tried piece by piece. */
export const isFull = (failure: Failure): boolean => kindOf(failure) === "full"

const texts: Readonly<Record<Kind, (filename: string) => Explanation>> = {
  busy: (filename) => ({
    reason: `another process kept ${filename} locked`,
    remedy: `Find it with \`fuser ${filename}\` and end it, then try again`
  }),
  full: (filename) => ({
    reason: `no space is left for ${filename}`,
    remedy: "Free space on its file system or raise the quota; the journal then goes on by itself"
  }),
  io: (filename) => ({
    reason: `the file system failed to read or write ${filename}`,
    remedy: "Look for disk errors (`dmesg`), a full quota or a file size limit (`ulimit -f`); then try again"
  }),
  damaged: (filename) => ({
    reason: `${filename} is damaged or no journal`,
    remedy: `Stop Stoker, move ${filename} away together with its -wal and -shm, and put back a copy or start without`
  }),
  refused: (filename) => ({
    reason: `${filename} cannot be opened for writing`,
    remedy: "See that its directory exists, is on a file system mounted for writing and belongs to Stoker's user"
  }),
  newer: (filename) => ({
    reason: `${filename} was written by a newer version of Stoker`,
    remedy: "Use that version, or point this one to another state directory"
  }),
  other: (filename) => ({
    reason: `${filename} is no journal of Stoker's`,
    remedy: "Point Stoker to another state directory, or move that file away"
  }),
  memory: (filename) => ({
    reason: `the thread that keeps ${filename} ran out of memory`,
    remedy: "Ask for fewer rows at once, or give the machine more memory; the journal goes on by itself"
  }),
  ended: (filename) => ({
    reason: `the thread that keeps ${filename} ended before it answered`,
    remedy:
      "Ask again: whether it was written down is not known, and a repeat is harmless. The journal restarts by itself"
  }),
  closed: (filename) => ({
    reason: `${filename} is closed`,
    remedy: "Ask again after the worker's next start"
  }),
  unknown: (filename) => ({
    reason: `${filename} could not be used`,
    remedy: "Try again; if it stays, report it with this message"
  })
}

/** The original words are kept at the end of the reason. */
export const explain = (failure: Failure, filename: string): Explanation => {
  const { reason, remedy } = texts[kindOf(failure)](filename)
  const code = failure.errcode === undefined ? failure.code : `SQLite ${failure.errcode}`
  return { reason: `${reason} (${failure.message}${code === undefined ? "" : `, ${code}`})`, remedy }
}
