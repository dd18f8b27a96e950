/** Runs a program to its end and gives all it said. For short programs: what it prints is held in memory. */
import { spawn } from "node:child_process"
import { delimiter, join } from "node:path"
import { projectRoot } from "./Tree.ts"

export interface Ended {
  /** Exit code; 128 + signal number is not made up here: -1 when a signal ended it. */
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** The environment in which `node`, `oxlint` and the rest are the project's own. */
export const projectEnv: NodeJS.ProcessEnv = {
  ...process.env,
  PATH: [join(projectRoot, "node_modules", ".bin"), process.env["PATH"]].join(delimiter)
}

export const run = (
  program: string,
  args: ReadonlyArray<string>,
  options: { readonly cwd?: string; readonly env?: NodeJS.ProcessEnv } = {}
): Promise<Ended> =>
  new Promise((resolve, reject) => {
    const child = spawn(program, args, { env: projectEnv, ...options, stdio: ["ignore", "pipe", "pipe"] })
    const stdout: Array<Buffer> = []
    const stderr: Array<Buffer> = []
    child.stdout.on("data", (chunk: Buffer) => stdout.push(chunk))
    child.stderr.on("data", (chunk: Buffer) => stderr.push(chunk))
    child.on("error", reject)
    child.on("close", (code) =>
      resolve({ code: code ?? -1, stdout: Buffer.concat(stdout).toString(), stderr: Buffer.concat(stderr).toString() }))
  })
