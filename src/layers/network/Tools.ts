/** The host's programs that make a network: where they are, and how they are run. */
import { Effect } from "effect"
import { spawn } from "node:child_process"
import { isAbsolute, join } from "node:path"
import { isExecutable } from "../host/Executable.ts"
import { NetworkError } from "./Network.ts"

/** What each program is needed for, and the Debian package that brings it. */
export const tools = {
  ip: "iproute2",
  nft: "nftables",
  nsenter: "util-linux"
} as const
export type Tool = keyof typeof tools

/** Usual places beside the worker's PATH: administrators' programs are often not on it. */
const usualFolders = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin"]

/** The first executable file of that name in these folders. */
export const findIn = (folders: ReadonlyArray<string>, name: string): string | undefined =>
  folders.filter(isAbsolute).map((folder) => join(folder, name)).find(isExecutable)

export const findTool = (path: string, tool: Tool): string | undefined =>
  findIn([...path.split(":"), ...usualFolders], tool)

/** The tool's file, or what to install. */
export const requireTool = (path: string, tool: Tool): Effect.Effect<string, NetworkError> => {
  const found = findTool(path, tool)
  return found === undefined
    ? Effect.fail(
      new NetworkError({
        reason: `there is no program ${tool}, which a sandbox's network needs`,
        remedy: `Install it (\`apt-get install ${tools[tool]}\`), or use a class that needs none of it.`
      })
    )
    : Effect.succeed(found)
}

export interface ToolRun {
  readonly argv: readonly [program: string, ...args: ReadonlyArray<string>]
  readonly stdin?: string
  readonly env?: Readonly<Record<string, string>>
}

export interface ToolResult {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

/** More than that of a program's output is of no use. */
const MOST_SAID = 1024 * 1024

/** Its output may be held by something it left behind. */
const CLOSE_MILLIS = 200

const environment = { PATH: usualFolders.join(":"), LC_ALL: "C" }

/**
 * Runs programs to their end, in cgroups that the worker's death empties: what is left of one is dead before anybody
 * removes what it made. One that does not end in time is killed with all that it started.
 */
export const makeRunner = (options: {
  readonly launch: string
  readonly limitMillis: number
}) =>
(procsFiles: ReadonlyArray<string>, { argv, env, stdin = "" }: ToolRun): Effect.Effect<ToolResult, NetworkError> =>
  Effect.callback<ToolResult, NetworkError>((resume) => {
    const [program] = argv
    const groups = procsFiles.flatMap((file) => ["-g", file])
    const child = spawn(options.launch, [...groups, "--", ...argv], {
      cwd: "/",
      env: { ...environment, ...env },
      stdio: ["pipe", "pipe", "pipe"],
      detached: true // a process group of its own, so that it can be killed as one
    })
    const parts: Record<"stdout" | "stderr", Array<Buffer>> = { stdout: [], stderr: [] }
    let size = 0
    const keep = (name: "stdout" | "stderr") => (bytes: Buffer) => {
      size += bytes.length
      if (size <= MOST_SAID) parts[name].push(bytes)
    }
    const said = (name: "stdout" | "stderr") => Buffer.concat(parts[name]).toString("utf8")
    const kill = () => {
      try {
        if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL")
      } catch {
        // Gone by itself.
      }
    }
    let late = false
    const timer = setTimeout(() => {
      late = true
      kill()
    }, options.limitMillis)
    let done = false
    const end = (code: number | null, signal: string | null) => {
      if (done) return
      done = true
      clearTimeout(timer)
      for (const stream of [child.stdout, child.stderr, child.stdin]) stream.destroy()
      const words = said("stderr").trim()
      const spoke = words === "" ? "" : `: ${words.slice(-2000)}`
      if (code !== null && !late) {
        return resume(Effect.succeed({ code, stdout: said("stdout"), stderr: said("stderr") }))
      }
      resume(Effect.fail(
        new NetworkError({
          reason: late
            ? `${program} did not end within ${options.limitMillis} ms${spoke}`
            : `${program} ended with ${signal}${spoke}`,
          remedy: "Is the host overloaded? Run it by hand to see what it waits for."
        })
      ))
    }
    child.stdout.on("data", keep("stdout"))
    child.stderr.on("data", keep("stderr"))
    child.stdin.on("error", () => {}) // it ended without reading: its exit tells why
    child.stdin.end(stdin)
    child.on("error", (cause) => {
      if (done) return
      done = true
      clearTimeout(timer)
      resume(Effect.fail(
        new NetworkError({
          reason: `${program} could not be started: ${cause.message}`,
          remedy: "Run `stoker doctor`.",
          cause
        })
      ))
    })
    child.on("exit", (code, signal) => setTimeout(() => end(code, signal), CLOSE_MILLIS).unref())
    child.on("close", end)
    return Effect.sync(() => {
      done = true
      clearTimeout(timer)
      kill()
    })
  })
