/** Runs a file of this folder as a process of its own and reads the lines it prints. */
import { Effect } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"

export interface Child {
  readonly process: ChildProcess
  /** All of its output, line by line, until its end. */
  readonly lines: AsyncIterable<string>
  readonly ended: Promise<unknown>
}

const pathOf = (file: string) => fileURLToPath(new URL(`./${file}`, import.meta.url))

/** Killed, and waited for, when the scope closes. `before` is a command that starts the rest, such as `unshare`. */
export const child = (file: string, args: ReadonlyArray<string>, before: ReadonlyArray<string> = []) =>
  Effect.acquireRelease(
    Effect.sync((): Child => {
      const [program = process.execPath, ...rest] = [...before, process.execPath, pathOf(file), ...args]
      const started = spawn(program, rest, { stdio: ["ignore", "pipe", "inherit"], env: { PATH: process.env.PATH } })
      return { process: started, lines: createInterface({ input: started.stdout }), ended: once(started, "close") }
    }),
    ({ ended, process }) =>
      Effect.promise(() => {
        process.kill("SIGKILL")
        return ended
      })
  )

/** What it says until it ends by itself. */
export const output = (started: Child) =>
  Effect.promise(async () => {
    const lines: Array<string> = []
    for await (const line of started.lines) lines.push(line)
    await started.ended
    return lines
  })
