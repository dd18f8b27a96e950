/** Our agent as a process of this machine, and clients of it. */
import { Effect } from "effect"
import { spawn } from "node:child_process"
import { mkdirSync, readdirSync } from "node:fs"
import { Agent as Connections, request } from "node:http"
import { connect } from "node:net"
import { join } from "node:path"
import { guestPath, jobId, tempDir } from "../guest/Native.ts"
import { patience } from "../support/Slowness.ts"
import { projectRoot } from "../support/Tree.ts"

export const agentPath = join(projectRoot, "build", "native", "agent")

export interface RunningAgent {
  readonly pid: number
  readonly port: number
  /** What is in its directory: a job's while it runs. */
  readonly places: () => ReadonlyArray<string>
}

/** Starts it for the scope, on a free port, and waits until it listens. It serves this machine with `--local` only. */
export const agentFor = Effect.fnUntraced(function*(...options: ReadonlyArray<string>) {
  const work = join(yield* tempDir, "work")
  mkdirSync(work)
  const identity = ["--uid", `${jobId}`, "--gid", `${jobId}`]
  const args = ["--port", "0", "--work", work, "--guest", guestPath, ...identity, ...options]
  const child = yield* Effect.acquireRelease(
    Effect.sync(() => spawn(agentPath, args, { stdio: ["ignore", "ignore", "pipe"] })),
    (child) =>
      Effect.callback<void>((resume) => {
        if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
        child.once("exit", () => resume(Effect.void))
        child.kill("SIGKILL")
      })
  )
  const port = yield* Effect.callback<number>((resume) => {
    let said = ""
    child.stderr.on("data", (chunk: Buffer) => {
      said += chunk.toString()
      const found = /listens on port (\d+)/.exec(said)
      if (found !== null) resume(Effect.succeed(Number(found[1])))
    })
    child.once("exit", () => resume(Effect.die(new Error(`the agent ended: ${said}`))))
  })
  const running: RunningAgent = { pid: child.pid ?? 0, port, places: () => readdirSync(work) }
  return running
})

export const agent = (...options: ReadonlyArray<string>) => agentFor("--local", ...options)

export interface Answer {
  readonly status: number
  readonly type: string | undefined
  readonly body: string
}

/** One request by Node's client, as it comes. */
export const ask = (
  port: number,
  method: string,
  path: string,
  body?: string | Uint8Array,
  headers: Readonly<Record<string, string>> = { "Content-Type": "application/json" },
  timeoutMs = patience(60_000)
): Effect.Effect<Answer> =>
  Effect.callback<Answer>((resume) => {
    const length = body === undefined ? {} : { "Content-Length": `${Buffer.byteLength(body)}` }
    const asking = request(
      { port, host: "127.0.0.1", method, path, headers: { ...headers, ...length }, agent: new Connections() },
      (response) => {
        const parts: Array<Buffer> = []
        response.on("data", (part: Buffer) => parts.push(part))
        response.on("error", (error) => resume(Effect.die(error)))
        response.on("end", () =>
          resume(Effect.succeed({
            status: response.statusCode ?? 0,
            type: response.headers["content-type"],
            body: Buffer.concat(parts).toString()
          })))
      }
    )
    asking.setTimeout(timeoutMs, () => asking.destroy(new Error(`no answer to ${method} ${path}`)))
    asking.on("error", (error) => resume(Effect.die(error)))
    asking.end(body)
  })

export interface RunAnswer {
  readonly status: number
  readonly message?: string
  readonly error?: string
  readonly stdout?: string
  readonly stderr?: string
  readonly exec_duration?: number
  readonly mem_usage?: number
}

/** What the old worker posted, with a program of the test's. */
export const runs = (port: number, language: string, code: string, id = "666") =>
  Effect.map(
    ask(port, "POST", "/run", JSON.stringify({ id, language, code, variant: "TODO" })),
    ({ body, status }): RunAnswer => ({ ...(JSON.parse(body) as object), status })
  )

/** Bytes as they are, and all that comes back until the other side closes. `more` is sent when the first of it comes. */
export const raw = (port: number, bytes: string | Uint8Array, more?: string): Effect.Effect<string> =>
  Effect.callback<string>((resume) => {
    const parts: Array<Buffer> = []
    const socket = connect(port, "127.0.0.1", () => socket.write(bytes))
    if (more !== undefined) socket.once("data", () => socket.write(more))
    socket.on("data", (part: Buffer) => parts.push(part))
    socket.on("error", () => {})
    socket.on("close", () => resume(Effect.succeed(Buffer.concat(parts).toString())))
    return Effect.sync(() => socket.destroy())
  })
