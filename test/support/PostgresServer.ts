/**
 * One real PostgreSQL with a folder of its own, on loopback only, as a user that is not root. The kernel ends it when
 * the process that started it dies, however that dies. fsync is on: what is tested is what is promised.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { chmodSync, chownSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { connect } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as pause } from "node:timers/promises"
import { freePort } from "./Ports.ts"

/** Where Debian keeps its versions; the newest. */
const programs = (): string => {
  const folder = "/usr/lib/postgresql"
  const versions = readdirSync(folder).map(Number).filter(Number.isFinite).toSorted((a, b) => b - a)
  return join(folder, String(versions[0]), "bin")
}

/** Debian's `nobody`: the server refuses to be root. */
const nobody = 65_534
const isRoot = process.getuid?.() === 0

/** The program's own pid, bound to ours: the kernel sends KILL when we are gone. */
const bound = (program: string, args: ReadonlyArray<string>): readonly [string, ReadonlyArray<string>] => {
  const user = isRoot ? ["--reuid", String(nobody), "--regid", String(nobody), "--clear-groups"] : []
  return ["setpriv", [...user, "--pdeathsig", "KILL", program, ...args]]
}

const ended = (child: ChildProcess): boolean => child.exitCode !== null || child.signalCode !== null

const awaitEnd = (child: ChildProcess): Promise<void> =>
  new Promise((resolve) => (ended(child) ? resolve() : child.once("exit", () => resolve())))

/** `kill` and `start` keep the data, as a power cut would; `dispose` ends it for good. */
export class PostgresServer {
  static readonly password = "se cret/%7:@"

  readonly port: number
  readonly folder: string
  private child: ChildProcess | undefined
  private readonly atExit = (): void => this.dispose()

  private constructor(port: number, folder: string) {
    this.port = port
    this.folder = folder
    process.once("exit", this.atExit)
  }

  /** A new server, ready for connections (about 2 s). `folder` may lie on a file system of the test's own. */
  static async start(parent = tmpdir()): Promise<PostgresServer> {
    const folder = mkdtempSync(join(parent, "stoker-pg-"))
    chmodSync(folder, 0o700)
    if (isRoot) chownSync(folder, nobody, nobody)
    const password = join(folder, "password")
    writeFileSync(password, PostgresServer.password, { mode: 0o644 })
    const data = join(folder, "data")
    const initdb =
      `--pgdata=${data} --pwfile=${password} --username=stoker --auth=scram-sha-256 --encoding=UTF8 --no-locale --no-sync`
    const [program, args] = bound(join(programs(), "initdb"), initdb.split(" "))
    const made = spawnSync(program, args, { cwd: folder, encoding: "utf8", env: { PATH: "/usr/bin:/bin" } })
    if (made.status !== 0) {
      rmSync(folder, { recursive: true, force: true })
      throw new Error(`initdb failed: is scripts/setup done? ${made.error?.message ?? ""}\n${made.stderr}`)
    }
    const server = new PostgresServer(await freePort(), folder)
    try {
      await server.start()
    } catch (error) {
      server.dispose()
      throw error
    }
    return server
  }

  /** postgres://..., user and password included. */
  url(password = PostgresServer.password): string {
    return `postgres://stoker:${encodeURIComponent(password)}@127.0.0.1:${this.port}/postgres`
  }

  /** Starts it again on its data; at once when it runs. */
  async start(): Promise<void> {
    if (this.child !== undefined && !ended(this.child)) return
    const settings = {
      listen_addresses: "127.0.0.1",
      port: String(this.port),
      unix_socket_directories: this.folder,
      fsync: "on",
      max_connections: "60",
      shared_buffers: "16MB",
      max_wal_size: "64MB",
      logging_collector: "off",
      // Files in its folder, which go with it, instead of memory that would outlive a kill.
      dynamic_shared_memory_type: "mmap"
    }
    const options = Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`])
    const log = join(this.folder, "log")
    const script = `exec "$@" >>"$0" 2>&1`
    const postgres = join(programs(), "postgres")
    const [program, args] = bound("/bin/sh", ["-c", script, log, postgres, "-D", join(this.folder, "data"), ...options])
    const child = spawn(program, args, { cwd: this.folder, env: { PATH: "/usr/bin:/bin" }, stdio: "ignore" })
    this.child = child
    const deadline = performance.now() + 30_000
    while (performance.now() < deadline) {
      if (ended(child)) throw new Error(`PostgreSQL ended while it started\n${readFileSync(log, "utf8").slice(-2000)}`)
      if (await this.answers()) return
      await pause(30)
    }
    throw new Error(`PostgreSQL took no connection within 30 s\n${readFileSync(log, "utf8").slice(-2000)}`)
  }

  /** As a power cut: its children end with it. Resolves when it is gone. */
  async kill(): Promise<void> {
    const child = this.child
    if (child === undefined) return
    // SIGQUIT is its own way to end at once without writing anything down; SIGKILL would leave its children for a moment.
    child.kill("SIGQUIT")
    await awaitEnd(child)
  }

  /** One of its processes, by the number that pg_stat_activity has, hangs with its sockets open, or goes on. */
  signalBackend(pid: number, signal: "SIGSTOP" | "SIGCONT"): void {
    const parent = /^PPid:\s+(\d+)$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]
    if (Number(parent) !== this.child?.pid) throw new Error(`process ${pid} is none of this server's`)
    process.kill(pid, signal)
  }

  /** Ends it at once and removes all it wrote. For every exit of this process, so it waits for nothing. */
  dispose(): void {
    process.removeListener("exit", this.atExit)
    this.child?.kill("SIGQUIT")
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 })
  }

  /** Whether it says anything but "starting up" to the first message of a client. */
  private answers(): Promise<boolean> {
    return new Promise((resolve) => {
      const socket = connect(this.port, "127.0.0.1")
      socket.on("error", () => resolve(false))
      socket.on("connect", () => {
        const body = Buffer.from("user\0stoker\0database\0postgres\0\0")
        const head = Buffer.alloc(8)
        head.writeInt32BE(body.length + 8, 0)
        head.writeInt32BE(196_608, 4)
        socket.write(Buffer.concat([head, body]))
      })
      // R: it asks for the password.
      socket.on("data", (data) => {
        resolve(data[0] === "R".charCodeAt(0))
        socket.destroy()
      })
      socket.on("close", () => resolve(false))
    })
  }
}
