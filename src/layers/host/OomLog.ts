/** Who was killed for want of memory, as the kernel's log tells it (mm/oom_kill.c, `dump_oom_summary`). */
import { closeSync, constants, openSync, readSync } from "node:fs"

/** One record is at most this long (PRINTK_MESSAGE_MAX with its prefix). */
const RECORD = 8192

/** A log that is being flooded must not hold the worker up: so many records are read at most. */
const RECORDS = 20_000

/** The name of the first process that was killed in a group whose path has this part; undefined if the log does not say. */
export const victimIn = (records: Iterable<string>, part: string): string | undefined => {
  for (const record of records) {
    const match = /oom-kill:.*\btask_memcg=([^,]*),task=([^,]*),pid=/.exec(record)
    if (match?.[1]?.split("/").includes(part) === true) return match[2]
  }
  return undefined
}

/** The records that the kernel still has, oldest first. None where its log may not be read. */
function* records(): Generator<string> {
  let fd: number
  try {
    fd = openSync("/dev/kmsg", constants.O_RDONLY | constants.O_NONBLOCK)
  } catch {
    return
  }
  try {
    const buffer = Buffer.alloc(RECORD)
    for (let count = 0; count < RECORDS; count++) {
      try {
        yield buffer.toString("utf8", 0, readSync(fd, buffer))
      } catch (cause) {
        // EPIPE: the one we wanted was overwritten meanwhile, the next is there. EAGAIN: that was the last.
        if (!(cause instanceof Error && "code" in cause && cause.code === "EPIPE")) return
      }
    }
  } finally {
    closeSync(fd)
  }
}

/** The first victim in the cgroup of that name. Reads the kernel's whole log, so it is for when somebody was killed. */
export const victim = (cgroup: string): string | undefined => victimIn(records(), cgroup)
