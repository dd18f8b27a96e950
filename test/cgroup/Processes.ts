/** Real processes in real groups, for the tests of this folder. */
import { Effect } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import * as Fs from "node:fs"
import type { Cgroup } from "../../src/layers/cgroup/Cgroup.ts"

/** How a process ended, with what it wrote. */
export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly output: string
}

export interface Started {
  readonly pid: number
  readonly ended: Effect.Effect<Ended>
  /** Waits until the process wrote a line of that text. */
  readonly said: (line: string) => Effect.Effect<void>
}

/** Starts a shell script whose first instruction runs in the group. Killed, by its own pid, with the scope. */
export const start = (group: Cgroup, script: string) =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => {
        const enter = "for f in $PROCS; do echo 0 > \"$f\" || exit 125; done; unset PROCS; exec sh -c \"$0\""
        const child = spawn("sh", ["-c", enter, script], {
          env: { PATH: process.env["PATH"], PROCS: group.procsFiles.join(" ") },
          stdio: ["ignore", "pipe", "pipe"]
        })
        const state = { output: "", ended: undefined as Ended | undefined }
        const hear = (chunk: Buffer) => {
          state.output += chunk.toString()
        }
        child.stdout.on("data", hear)
        child.stderr.on("data", hear)
        child.on("close", (code, signal) => {
          state.ended = { code, signal, output: state.output }
        })
        return { child, state }
      }),
      ({ child }) => Effect.sync(() => child.exitCode === null && child.signalCode === null && child.kill("SIGKILL"))
    ),
    ({ child, state }): Started => ({
      pid: child.pid ?? 0,
      ended: Effect.callback<Ended>((resume) => {
        if (state.ended !== undefined) return resume(Effect.succeed(state.ended))
        child.on("close", (code, signal) => resume(Effect.succeed({ code, signal, output: state.output })))
      }),
      said: (line) => awaitOutput(child, () => state.output.split("\n").includes(line))
    })
  )

const awaitOutput = (child: ChildProcess, isThere: () => boolean) =>
  Effect.callback<void>((resume) => {
    if (isThere()) return resume(Effect.void)
    child.stdout?.on("data", () => {
      if (isThere()) resume(Effect.void)
    })
  })

/** Every directory below the mounted hierarchies whose name begins so. */
export const directoriesNamed = (prefix: string, directory = "/sys/fs/cgroup"): ReadonlyArray<string> =>
  Fs.readdirSync(directory, { withFileTypes: true }).filter((entry) => entry.isDirectory()).flatMap(({ name }) => {
    const path = `${directory}/${name}`
    // Other tests' groups come and go while we look.
    const below = Fs.existsSync(path) ? directoriesNamed(prefix, path) : []
    return name.startsWith(prefix) ? [path, ...below] : below
  })

/** Makes the groups of these `cgroup.procs` files. */
export const makeDirectories = (procsFiles: ReadonlyArray<string>) =>
  Effect.sync(() => procsFiles.forEach((file) => Fs.mkdirSync(file.slice(0, file.lastIndexOf("/")))))
