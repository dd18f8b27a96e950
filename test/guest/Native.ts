/** Verbs for the tests of the native programs: build, start, ask, look for survivors. */
import { Effect, Schedule } from "effect"
import type { Scope } from "effect"
import { type ChildProcessByStdio, execFileSync, spawn } from "node:child_process"
import { chmodSync, chownSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { Readable, Writable } from "node:stream"
import { patience } from "../support/Slowness.ts"
import { projectRoot } from "../support/Tree.ts"

execFileSync(join(projectRoot, "native", "build"), { stdio: ["ignore", "ignore", "inherit"] })

/** The built programs. */
export const guestPath = join(projectRoot, "build", "native", "guest")
export const launchPath = join(projectRoot, "build", "native", "launch")
export const watchdogPath = join(projectRoot, "build", "native", "watchdog")
export const wirePath = join(projectRoot, "build", "native", "wire")

/** A uid and gid that nobody else on the machine has, so that "no process of the job" can be asked for. */
export const jobId = 700_000 + (process.pid % 10_000)

const removeTree = (path: string) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))

/** A directory that every user may search, removed with the scope. */
export const tempDir = Effect.acquireRelease(
  Effect.sync(() => {
    const path = mkdtempSync(join(tmpdir(), "stoker-guest-"))
    chmodSync(path, 0o755)
    return path
  }),
  removeTree
)

/** A work directory that belongs to the job. */
export const workDir = Effect.gen(function*() {
  const path = join(yield* tempDir, "work")
  mkdirSync(path, { mode: 0o700 })
  chownSync(path, jobId, jobId)
  return path
})

export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

export interface Program {
  readonly pid: number
  readonly child: ChildProcessByStdio<Writable, Readable, Readable>
  readonly stderr: () => string
  readonly ended: Effect.Effect<Ended>
}

/** Starts a program; the end of the scope kills it (by its own pid, while it is still our child) and waits for its end. */
export const program = (command: string, args: ReadonlyArray<string>): Effect.Effect<Program, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const child = spawn(command, args, { stdio: ["pipe", "pipe", "pipe"] })
      const pid = child.pid
      if (pid === undefined) throw new Error(`${command} did not start`)
      const stderr: Array<Buffer> = []
      child.stderr.on("data", (chunk: Buffer) => stderr.push(chunk))
      child.stdin.on("error", () => undefined) // a guest that ends closes it: that is asked for by other means
      const ended = Effect.callback<Ended>((resume) => {
        if (child.exitCode !== null || child.signalCode !== null) {
          resume(Effect.succeed({ code: child.exitCode, signal: child.signalCode }))
        } else child.once("exit", (code, signal) => resume(Effect.succeed({ code, signal })))
      })
      return { pid, child, ended, stderr: () => Buffer.concat(stderr).toString() }
    }),
    ({ child, ended }) => {
      child.stdin.destroy()
      child.kill("SIGKILL")
      return Effect.asVoid(ended)
    }
  )

/** Asks again until it is so; fails the test with `what` when it is not so in so many seconds of a plain machine. */
export const eventually = (what: string, seconds: number, holds: () => boolean): Effect.Effect<void> =>
  Effect.suspend(() => holds() ? Effect.void : Effect.fail("not yet")).pipe(
    Effect.retry(Schedule.spaced("5 millis")),
    Effect.timeout(patience(seconds * 1000)),
    Effect.catch(() => Effect.die(new Error(`not in time: ${what}`)))
  )

/** State letter and command line of a process, or undefined if there is none. */
export const look = (
  pid: number | string
): { readonly state: string; readonly command: string; readonly uid: number } | undefined => {
  try {
    const status = readFileSync(`/proc/${pid}/status`, "utf8")
    return {
      state: /^State:\t(\w)/m.exec(status)?.[1] ?? "?",
      uid: Number(/^Uid:\t(\d+)/m.exec(status)?.[1]),
      command: readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ")
    }
  } catch {
    return undefined
  }
}

/** Whether a process runs; the dead who wait to be reaped do not. */
export const isAlive = (pid: number): boolean => {
  const found = look(pid)
  return found !== undefined && found.state !== "Z" && found.state !== "X"
}

/** The pids of all living processes for which it holds. */
export const processes = (holds: (process: { readonly command: string; readonly uid: number }) => boolean) =>
  readdirSync("/proc").filter((name) => /^\d+$/.test(name)).map(Number).filter((pid) => {
    const found = look(pid)
    return found !== undefined && found.state !== "Z" && found.state !== "X" && holds(found)
  })
