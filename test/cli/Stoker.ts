/** The command line as users start it, from source, over a state directory of the test's own. */
import { type ChildProcess, spawn } from "node:child_process"
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmdirSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { basename, join } from "node:path"
import { projectEnv } from "../support/Run.ts"
import { projectRoot } from "../support/Tree.ts"

export interface Ended {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

export interface StartOptions {
  readonly env?: NodeJS.ProcessEnv
  readonly input?: string | Buffer
  readonly cwd?: string
}

/** One started command. */
export class Started {
  readonly child: ChildProcess
  readonly ended: Promise<Ended>
  stdout = ""
  stderr = ""
  private readonly listeners = new Set<() => void>()

  constructor(child: ChildProcess, input: string | Buffer | undefined) {
    this.child = child
    child.stdout?.on("data", (chunk: Buffer) => this.heard(() => this.stdout += chunk.toString("latin1")))
    child.stderr?.on("data", (chunk: Buffer) => this.heard(() => this.stderr += chunk.toString()))
    child.stdin?.on("error", () => undefined)
    child.stdin?.end(input)
    this.ended = new Promise((resolve, reject) => {
      child.on("error", reject)
      child.on("close", (code) => {
        this.heard(() => undefined)
        resolve({ code, stdout: Buffer.from(this.stdout, "latin1").toString(), stderr: this.stderr })
      })
    })
  }

  /** Once it has said this on that stream; rejects when it ends without. */
  said(stream: "stdout" | "stderr", text: string | RegExp): Promise<void> {
    const has = () => typeof text === "string" ? this[stream].includes(text) : text.test(this[stream])
    return new Promise((resolve, reject) => {
      const look = () => {
        if (has()) resolve()
        else if (this.child.exitCode !== null) reject(new Error(`ended without ${text}: ${this.stdout}${this.stderr}`))
        else return
        this.listeners.delete(look)
      }
      this.listeners.add(look)
      look()
    })
  }

  kill(signal: NodeJS.Signals): void {
    this.child.kill(signal)
  }

  private heard(take: () => unknown): void {
    take()
    for (const listener of this.listeners) listener()
  }
}

export class Stoker {
  readonly folder = mkdtempSync(join(tmpdir(), "stoker-cli-"))
  readonly state = join(this.folder, "state")
  private readonly running = new Set<Started>()

  start(args: ReadonlyArray<string>, options: StartOptions = {}): Started {
    const { AMQP_URL: _, ...env } = projectEnv
    const child = spawn("node", [join(projectRoot, "src/main.ts"), ...args], {
      cwd: options.cwd ?? this.folder,
      env: { ...env, STOKER_STATE: this.state, ...options.env },
      stdio: ["pipe", "pipe", "pipe"]
    })
    const started = new Started(child, options.input)
    this.running.add(started)
    child.on("close", () => this.running.delete(started))
    return started
  }

  run(args: ReadonlyArray<string>, options: StartOptions = {}): Promise<Ended> {
    return this.start(args, options).ended
  }

  async list(): Promise<ReadonlyArray<{ id: string; state: string; instance?: string }>> {
    return JSON.parse((await this.run(["list", "--json", "--limit", "1000"])).stdout)
  }

  /** What is left of all jobs that ran here: ledger rows, sandbox files, cgroups, processes. */
  async leftovers(): Promise<ReadonlyArray<string>> {
    const below = (...parts: ReadonlyArray<string>) => {
      const folder = join(this.state, ...parts)
      return existsSync(folder) ? readdirSync(folder).map((name) => join(folder, name)) : []
    }
    const instances = new Set((await this.list()).flatMap(({ instance }) => instance ?? []))
    const groups = readdirSync("/sys/fs/cgroup", { recursive: true, encoding: "utf8" })
      .filter((path) => instances.has(/stoker-([^/]+)$/.exec(path)?.[1] ?? ""))
    const processes = readdirSync("/proc").filter((name) => /^\d+$/.test(name)).flatMap((pid) => {
      try {
        const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ")
        return words.includes(this.state) ? [`process ${pid}: ${words}`] : []
      } catch {
        return []
      }
    })
    const files = [...instances].flatMap((instance) => [
      ...below("instances", instance, "crun"),
      ...below("instances", instance, "work")
    ])
    return [...below("ledger"), ...below("starting"), ...files, ...groups, ...processes]
  }

  /** What a janitor would do for workers that ended at once: without the state directory none knows of them. */
  private removeCgroups(): void {
    const instances = join(this.state, "instances")
    const names = new Set(existsSync(instances) ? readdirSync(instances).map((name) => `stoker-${name}`) : [])
    if (names.size === 0) return
    const groups = readdirSync("/sys/fs/cgroup", { recursive: true, encoding: "utf8" })
    for (const path of groups.filter((path) => names.has(basename(path)))) {
      try {
        rmdirSync(join("/sys/fs/cgroup", path))
      } catch {
        // Not empty, or shown in two hierarchies and gone with the first: `leftovers` is what judges.
      }
    }
  }

  /** Ends what still runs and removes the folder. */
  async dispose(): Promise<void> {
    for (const started of this.running) {
      // Twice is at once. Not KILL: with the state directory gone, no janitor would find what that leaves.
      started.kill("SIGTERM")
      await started.said("stderr", "a second one").catch(() => undefined)
      started.kill("SIGTERM")
      await started.ended
    }
    this.removeCgroups()
    rmSync(this.folder, { recursive: true, force: true })
  }
}
