/** The jobs of a storm, in both dialects, and what may come of each. */
import { readdirSync, statSync } from "node:fs"
import { join } from "node:path"
import type { Random } from "../support/Random.ts"

/** What a job's last status says, whatever the dialect. */
export interface Ending {
  /** The outcome and what was measured: a job that ran once has one, however often it is told. */
  readonly identity: string
  /** Success, a code, or why not. */
  readonly outcome: string
  readonly stdout: string
}

export interface StormJob {
  readonly id: string
  readonly dialect: "codebench" | "stoker"
  readonly kind: string
  readonly body: object
  /** Milliseconds after the storm's beginning. */
  readonly atMs: number
  /** Of an outcome nobody of ours had a hand in. */
  readonly isExpected: (ending: Ending) => boolean
}

/** Outcomes that are ours to have: what a kill may make of a job. */
export const isOurs = (outcome: string): boolean =>
  outcome.includes("could not be run by") || outcome.includes("was lost")

/** What a program says that found another run of its job alive. */
export const TWICE = "another run of this job is alive"

/**
 * A file of the host's /usr for each job, the same inode in all sandboxes. Its lock is the kernel's word that no two runs
 * of a job are alive at once: it is held until the last process that has it is dead, and a descriptor for reading will do.
 */
const lockFiles = (count: number): ReadonlyArray<string> => {
  const inodes = new Set<number>()
  const found: Array<string> = []
  const walk = (folder: string) => {
    for (const entry of readdirSync(folder, { withFileTypes: true }).toSorted((a, b) => a.name < b.name ? -1 : 1)) {
      if (found.length >= count) return
      const path = join(folder, entry.name)
      if (entry.isDirectory()) walk(path)
      else if (entry.isFile() && /^[\w./+-]+$/.test(path)) {
        const { ino, mode } = statSync(path)
        if ((mode & 0o004) === 0 || inodes.has(ino)) continue
        inodes.add(ino)
        found.push(path)
      }
    }
  }
  walk("/usr/share")
  walk("/usr/lib")
  if (found.length < count) throw new Error(`there are only ${found.length} files for ${count} jobs: set STORM_JOBS`)
  return found
}

interface Kind {
  readonly name: string
  readonly script: (random: Random) => string
  readonly limits?: object
  readonly expected: RegExp
  /** Its last words must be there. */
  readonly ends: boolean
}

const MiB = 1024 * 1024

/** Limits can be said in Stoker's dialect only. */
const kinds: ReadonlyArray<Kind> = [
  { name: "short", script: () => "true", expected: /^succeeded$/, ends: true },
  { name: "failing", script: () => "echo bad >&2; exit 3", expected: /^exited 3$/, ends: false },
  { name: "sleep", script: (random) => `sleep ${(100 + random(1900)) / 1000}`, expected: /^succeeded$/, ends: true },
  {
    name: "output",
    script: () => `head -c 1000000 /dev/zero | tr '\\0' x; echo`,
    expected: /^succeeded$/,
    ends: true
  },
  {
    name: "grandchildren",
    script: () => "(setsid sleep 600 &); (setsid sh -c 'trap \"\" TERM; while :; do sleep 1; done' &); sleep 0.2",
    expected: /^succeeded$/,
    ends: true
  },
  { name: "endless", script: () => "sleep 600", limits: { wallMs: 700 }, expected: /wall time limit/, ends: false },
  {
    name: "hog",
    script: () => "exec tail /dev/zero",
    limits: { memoryBytes: 24 * MiB },
    expected: /memory limit/,
    ends: false
  }
]

/** Spread evenly over the time, but for a random part. */
export const makeJobs = (count: number, spanMs: number, random: Random, run: string): ReadonlyArray<StormJob> => {
  const locks = lockFiles(count)
  return Array.from({ length: count }, (_, n) => {
    const kind = kinds[random(kinds.length)] ?? kinds[0]
    if (kind === undefined) throw new Error("there are no kinds of jobs")
    const dialect = kind.limits !== undefined || random(2) === 0 ? "stoker" : "codebench"
    const id = `${run}-${n}-${kind.name}`
    const lock = `exec 9<${locks[n]}; flock -n 9 || { echo '${TWICE}'; exit 97; }`
    const command = `${lock}; echo begin; ${kind.script(random)}; code=$?; echo end; exit $code`
    return {
      id,
      dialect,
      kind: kind.name,
      atMs: Math.floor((n * spanMs) / count) + random(500),
      body: dialect === "codebench"
        ? { id, type: "command", command }
        : { id, function: "command", args: { command }, ...(kind.limits === undefined ? {} : { limits: kind.limits }) },
      isExpected: ({ outcome, stdout }) =>
        kind.expected.test(outcome) && stdout.startsWith("begin\n") && (!kind.ends || stdout.endsWith("end\n"))
    }
  })
}
