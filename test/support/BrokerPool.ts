/**
 * The brokers of one test run. Lives in vitest's main process, because test files come and go in processes of their
 * own; those lease a broker over a unix socket (client: Broker.ts). A connection is a lease: when it closes, even
 * because its process died, the virtual host goes and the broker is free again. Nothing starts before the first lease.
 */
import { mkdtempSync, rmSync } from "node:fs"
import { createServer, type Server, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { BrokerProcess } from "./BrokerProcess.ts"

/** One line of JSON each way. `acquire` comes first; what follows concerns the broker it gave. */
export interface Request {
  readonly id: number
  readonly verb: "acquire" | "eval" | "kill" | "start" | "startEmpty" | "freeze" | "thaw"
  readonly exclusive?: boolean
  readonly source?: string
}

/** The answer to the request with the same id; `error` instead of `result` when it failed. */
export interface Response {
  readonly id: number
  readonly result?: unknown
  readonly error?: string
}

/** What `acquire` gives. */
export interface Leased {
  readonly port: number
  readonly vhost: string
}

interface Lease {
  readonly broker: BrokerProcess
  readonly exclusive: boolean
  readonly vhost: string
}

/** See the head of the file. */
export class BrokerPool {
  /** Where clients connect. */
  readonly address: string
  private readonly folder: string
  private readonly server: Server
  private readonly sockets = new Set<Socket>()
  private readonly started = new Set<BrokerProcess>()
  private readonly idle: Array<BrokerProcess> = []
  private shared: Promise<BrokerProcess> | undefined
  private vhosts = 0
  private closed = false
  private readonly atExit = (): void => this.close()

  private constructor() {
    this.folder = mkdtempSync(join(tmpdir(), "stoker-brokers-"))
    this.address = join(this.folder, "pool")
    this.server = createServer((socket) => this.serve(socket))
    process.once("exit", this.atExit)
  }

  static async open(): Promise<BrokerPool> {
    const pool = new BrokerPool()
    await new Promise<void>((resolve, reject) => {
      pool.server.once("error", reject)
      pool.server.listen(pool.address, resolve)
    })
    // Only leases keep the process busy.
    pool.server.unref()
    return pool
  }

  /** Ends every broker and lease. */
  close(): void {
    this.closed = true
    process.removeListener("exit", this.atExit)
    this.server.close()
    for (const socket of this.sockets) socket.destroy()
    for (const broker of this.started) broker.dispose()
    rmSync(this.folder, { recursive: true, force: true })
  }

  private serve(socket: Socket): void {
    let lease: Promise<Lease> | undefined
    this.sockets.add(socket)
    socket.on("error", () => undefined)
    socket.on("close", () => {
      this.sockets.delete(socket)
      lease?.then((held) => this.release(held)).catch(() => undefined)
    })
    const handle = async (request: Request): Promise<unknown> => {
      if (request.verb === "acquire") {
        lease ??= this.acquire(request.exclusive === true)
        const { broker, vhost } = await lease
        return { port: broker.port, vhost } satisfies Leased
      }
      if (lease === undefined) throw new Error("acquire comes first")
      return this.perform(await lease, request)
    }
    createInterface({ input: socket }).on("line", (line) => {
      const request = JSON.parse(line) as Request
      handle(request).then(
        (result): Response => ({ id: request.id, result: result ?? null }),
        (error: unknown): Response => ({
          id: request.id,
          error: error instanceof Error ? error.message : String(error)
        })
      ).then((response) => socket.writable && socket.write(`${JSON.stringify(response)}\n`)).catch(() => undefined)
    })
  }

  private async perform({ broker, exclusive, vhost }: Lease, { source, verb }: Request): Promise<unknown> {
    if (verb === "eval") return broker.eval(source ?? "ok.")
    // Other files' tests would fail for reasons of ours.
    if (!exclusive) throw new Error(`${verb} needs a broker of one's own: Broker.acquireExclusive()`)
    switch (verb) {
      case "acquire":
        throw new Error("a lease has one broker")
      case "kill":
        return broker.kill()
      case "start":
        return broker.start()
      case "startEmpty":
        await broker.startEmpty()
        return this.addVhost(broker, vhost)
      case "freeze":
        return broker.signal("SIGSTOP")
      case "thaw":
        return broker.signal("SIGCONT")
    }
  }

  private async acquire(exclusive: boolean): Promise<Lease> {
    const broker = exclusive ? await this.takeIdle() : await this.takeShared()
    const vhost = `t${++this.vhosts}`
    await this.addVhost(broker, vhost)
    return { broker, exclusive, vhost }
  }

  private async addVhost(broker: BrokerProcess, vhost: string): Promise<void> {
    await broker.eval(
      `rabbit_vhost:add(<<"${vhost}">>, <<"stoker">>),
       rabbit_auth_backend_internal:set_permissions(
         <<"guest">>, <<"${vhost}">>, <<".*">>, <<".*">>, <<".*">>, <<"stoker">>).`
    )
  }

  private takeShared(): Promise<BrokerProcess> {
    this.shared ??= this.launch().catch((error: unknown) => {
      this.shared = undefined
      throw error
    })
    return this.shared
  }

  private async takeIdle(): Promise<BrokerProcess> {
    const broker = this.idle.pop()
    if (broker === undefined) return this.launch()
    await broker.start()
    return broker
  }

  private async launch(): Promise<BrokerProcess> {
    const broker = await BrokerProcess.start()
    this.started.add(broker)
    if (this.closed) broker.dispose()
    return broker
  }

  private async release({ broker, exclusive, vhost }: Lease): Promise<void> {
    if (this.closed) return
    if (exclusive) {
      // In whatever state a test left it. It is cheaper to hand on than to start: a later file finds it running.
      broker.signal("SIGCONT")
      await broker.start()
      await broker.eval("rabbit_alarm:clear_alarm({resource_limit, memory, node()}), rabbit_alarm:get_alarms().")
    }
    await broker.eval(`rabbit_vhost:delete(<<"${vhost}">>, <<"stoker">>).`)
    if (exclusive) this.idle.push(broker)
  }
}
