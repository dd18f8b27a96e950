/** A real worker process: start, wait for a line of it, kill it. Only ever signals the process it started. */
import { type ChildProcess, spawn } from "node:child_process"
import { once } from "node:events"
import { join } from "node:path"
import { projectEnv } from "../support/Run.ts"

export interface WorkerOptions {
  readonly state: string
  readonly slots?: number
  readonly amqpUrl?: string
  readonly leaseMs?: number
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
  static async start({ amqpUrl, leaseMs = 30_000, slots = 2, state }: WorkerOptions): Promise<WorkerProcess> {
    const { AMQP_URL: _, ...env } = projectEnv
    const child = spawn(
      "node",
      [join(import.meta.dirname, "program.ts"), state, String(slots), String(leaseMs)],
      { env: { ...env, ...(amqpUrl === undefined ? {} : { AMQP_URL: amqpUrl }) }, stdio: ["ignore", "pipe", "pipe"] }
    )
    const worker = new WorkerProcess(child)
    await worker.sees(amqpUrl === undefined ? "up\n" : "connected\n")
    await worker.sees("up\n")
    return worker
  }

  get pid(): number {
    return this.child.pid ?? 0
  }

  get output(): string {
    return this.said
  }

  /** Waits until the text was printed. */
  async sees(text: string, limitMillis = 20_000): Promise<void> {
    const until = performance.now() + limitMillis
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
