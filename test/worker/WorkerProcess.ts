/** A real worker process: start, wait for a line of it, kill it. Only ever signals the process it started. */
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { readdirSync } from "node:fs"
import { join } from "node:path"
import { projectEnv } from "../support/Run.ts"
import { patience } from "../support/Slowness.ts"

export interface WorkerOptions {
  readonly state: string
  readonly slots?: number
  readonly amqpUrl?: string
  readonly leaseMs?: number
  /** Default: the standard one; 0 where the state directory is a tmpfs. */
  readonly diskReserveBytes?: number
  /** The state directory is a tmpfs of this size, mounted in a namespace that only the worker sees. */
  readonly stateBytes?: number
  readonly env?: Readonly<Record<string, string>>
  /** Do not wait for the broker. */
  readonly brokerAway?: boolean
}

export class WorkerProcess {
  private readonly child: ChildProcess
  private said = ""

  private constructor(child: ChildProcess) {
    this.child = child
    child.stdout?.on("data", (bytes: Buffer) => this.said += bytes.toString())
    child.stderr?.on("data", (bytes: Buffer) => this.said += bytes.toString())
  }

  /** Up when this returns; with a broker, connected too. */
  static async start(options: WorkerOptions): Promise<WorkerProcess> {
    const { amqpUrl, leaseMs = 30_000, slots = 2, state, stateBytes } = options
    const { AMQP_URL: _, ...env } = projectEnv
    // A small file system is there to be filled.
    const diskReserveBytes = options.diskReserveBytes ?? (stateBytes === undefined ? undefined : 0)
    const reserve = diskReserveBytes === undefined ? [] : [String(diskReserveBytes)]
    const node = ["node", join(import.meta.dirname, "program.ts"), state, String(slots), String(leaseMs), ...reserve]
    const mounted = `mount -t tmpfs -o size=${stateBytes},mode=700 tmpfs "$2" && exec node "$@"`
    const [program = "node", ...args] = stateBytes === undefined
      ? node
      : ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", mounted, "sh", ...node.slice(1)]
    const child = spawn(program, args, {
      env: { ...env, ...options.env, ...(amqpUrl === undefined ? {} : { AMQP_URL: amqpUrl }) },
      stdio: ["ignore", "pipe", "pipe"]
    })
    const worker = new WorkerProcess(child)
    await worker.sees("up\n")
    if (amqpUrl !== undefined && options.brokerAway !== true) await worker.sees("connected\n")
    return worker
  }

  /** Starts a worker that takes nothing, for its janitor: what killed ones left is gone when this returns. */
  static async sweep(state: string): Promise<void> {
    // A busy kernel may keep a cgroup of the sweeper's own a moment too long: then it is for the next one.
    for (let turn = 0; turn < 5; turn++) {
      await (await WorkerProcess.start({ state })).drain()
      if (readdirSync(join(state, "instances")).length === 0) return
    }
  }

  get pid(): number {
    return this.child.pid ?? 0
  }

  get output(): string {
    return this.said
  }

  /** Waits until the text was printed. */
  async sees(text: string, limitMillis = 20_000): Promise<void> {
    const until = performance.now() + patience(limitMillis)
    while (!this.said.includes(text)) {
      if (performance.now() > until || this.child.exitCode !== null) {
        throw new Error(`the worker did not say ${JSON.stringify(text)}:\n${this.said}`)
      }
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
  }

  /** kill -9. */
  async kill(): Promise<void> {
    await this.end("SIGKILL")
  }

  /** The orderly end; gives its exit code. */
  async drain(): Promise<number | null> {
    await this.end("SIGTERM")
    return this.child.exitCode
  }

  private async end(signal: "SIGKILL" | "SIGTERM"): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return
    const gone = once(this.child, "exit")
    this.child.kill(signal)
    await gone
  }
}
