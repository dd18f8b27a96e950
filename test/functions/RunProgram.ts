/** Runs a program's phases as plain processes in a directory of their own: proves commands against real toolchains. */
import { spawn } from "node:child_process"
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import type { Phase, Program } from "../../src/schemas/Program.ts"

export interface PhaseResult {
  readonly name: Phase["name"]
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

const runPhase = (phase: Phase, cwd: string, tmp: string): Promise<PhaseResult> =>
  new Promise((resolve, reject) => {
    const [file, ...args] = phase.argv
    const child = spawn(file, args, { cwd, env: { ...phase.env, HOME: cwd, TMPDIR: tmp } })
    const output = { stdout: "", stderr: "" }
    for (const name of ["stdout", "stderr"] as const) {
      child[name].setEncoding("utf8").on("data", (text: string) => {
        output[name] += text
      })
    }
    child.on("error", reject)
    child.on("close", (code) => resolve({ name: phase.name, code, ...output }))
    // A program that does not read its input closes it: no error of ours.
    child.stdin.on("error", () => undefined)
    child.stdin.end(phase.stdin)
  })

/** Phases up to the first that fails; `left` is what they left in TMPDIR. */
export const runProgram = async (program: Program) => {
  const root = await mkdtemp(join(tmpdir(), "stoker-functions-"))
  try {
    const work = join(root, "work")
    const tmp = join(root, "tmp")
    await mkdir(work)
    await mkdir(tmp)
    for (const { content, executable, path } of program.files) {
      await mkdir(dirname(join(work, path)), { recursive: true })
      await writeFile(join(work, path), content, { mode: executable ? 0o755 : 0o644 })
    }
    const phases: Array<PhaseResult> = []
    for (const phase of program.phases) {
      const result = await runPhase(phase, work, tmp)
      phases.push(result)
      if (result.code !== 0) break
    }
    return { phases, left: await readdir(tmp) }
  } finally {
    await rm(root, { recursive: true, force: true })
  }
}
