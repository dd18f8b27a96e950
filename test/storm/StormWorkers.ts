/** Bundled workers as an operator runs them: one that ends is started again, until the storm is over. */
import { type ChildProcess, spawn } from "node:child_process"
import { closeSync, openSync, readFileSync, writeSync } from "node:fs"
import { join } from "node:path"
import { setTimeout as pause } from "node:timers/promises"
import { projectEnv } from "../support/Run.ts"
import { projectRoot } from "../support/Tree.ts"

export interface StormWorkerOptions {
  readonly name: string
  readonly state: string
  readonly url: string
  /** What it says, appended to over its restarts. */
  readonly logPath: string
  readonly slots: number
  /** Hears of starts and ends. */
  readonly note: (text: string) => void
}

const mark = (start: number) => `-- start ${start} --\n`

const hasEnded = (child: ChildProcess): boolean => child.exitCode !== null || child.signalCode !== null

/** One place for a worker, and who is in it. */
export class StormWorker {
  readonly options: StormWorkerOptions
  private child: ChildProcess
  private over = false
  private starts = 0
  private gone: Promise<number | null>

  constructor(options: StormWorkerOptions) {
    this.options = options
    this.child = this.spawn()
    this.gone = this.attend()
  }

  /** 0 while nobody is there. */
  get pid(): number {
    return hasEnded(this.child) ? 0 : this.child.pid ?? 0
  }

  /** An orderly end; somebody else takes the place. */
  replace(): void {
    if (!hasEnded(this.child)) this.child.kill("SIGTERM")
  }

  /** The last one's orderly end and its exit code. It has swept what dead ones left, for that is before it is ready. */
  async end(): Promise<number | null> {
    const limit = performance.now() + 60_000
    while (!this.isReady && performance.now() < limit) await pause(20)
    this.over = true
    this.replace()
    return this.gone
  }

  /** At once, by force: for a storm that failed. */
  abandon(): void {
    this.over = true
    if (!hasEnded(this.child)) this.child.kill("SIGKILL")
  }

  /** Whoever is in the place consumes. */
  get isReady(): boolean {
    const said = readFileSync(this.options.logPath, "utf8")
    return !hasEnded(this.child) && said.includes("\"consuming\"", said.lastIndexOf(mark(this.starts)))
  }

  private spawn(): ChildProcess {
    const { logPath, name, note, slots, state, url } = this.options
    this.starts += 1
    const log = openSync(logPath, "a")
    writeSync(log, mark(this.starts))
    const child = spawn(
      join(projectRoot, "dist", "stoker"),
      ["worker", "--slots", String(slots), "--drain", "10s", "--log-format", "json"],
      { env: { ...projectEnv, AMQP_URL: url, STOKER_STATE: state }, stdio: ["ignore", log, log] }
    )
    closeSync(log)
    note(`${name} starts as ${child.pid}`)
    return child
  }

  private async attend(): Promise<number | null> {
    const { name, note } = this.options
    for (;;) {
      const { child } = this
      const code = await new Promise<number | null>((resolve) => child.once("exit", resolve))
      note(`${name} (${child.pid}) ended: ${child.signalCode ?? code}`)
      if (this.over) return code
      await pause(200)
      if (this.over) return code
      this.child = this.spawn()
    }
  }
}
