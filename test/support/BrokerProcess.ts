/**
 * One real RabbitMQ with everything of its own: ports, epmd, node name, data. It listens on loopback only, and the
 * kernel kills it when the process that started it dies, however that dies.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { connect } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as pause } from "node:timers/promises"
import { freePort } from "./Ports.ts"

// The wrapper in /usr/sbin would change user and folder; this one runs where and as whom it is called.
const server = "/usr/lib/rabbitmq/bin/rabbitmq-server"
const startLimitMillis = 90_000
const evalLimitMillis = 20_000

/**
 * Read by the broker when it has booted: evaluates what comes in over a unix socket, framed by u32 lengths. The answer
 * is 0 or 1 (failed), then text. rabbitmqctl would start a virtual machine of a second or two per question, and the
 * management API shows counts up to five seconds late.
 */
const controlScript = (socket: string): string => `
spawn(fun() ->
  _ = file:delete("${socket}"),
  {ok, Listen} = gen_tcp:listen(0, [binary, {packet, 4}, {active, false}, {ifaddr, {local, "${socket}"}}]),
  Answer = fun(Source) ->
    try
      {ok, Tokens, _} = erl_scan:string(unicode:characters_to_list(Source)),
      {ok, Expressions} = erl_parse:parse_exprs(Tokens),
      case erl_eval:exprs(Expressions, []) of
        {value, Text, _} when is_binary(Text) -> [0, Text];
        {value, Value, _} -> [0, unicode:characters_to_binary(io_lib:format("~0tp", [Value]))]
      end
    catch
      Class:Reason -> [1, unicode:characters_to_binary(io_lib:format("~p: ~0tp", [Class, Reason]))]
    end
  end,
  Serve = fun Serve(Socket) ->
    case gen_tcp:recv(Socket, 0) of
      {ok, Source} -> ok = gen_tcp:send(Socket, Answer(Source)), Serve(Socket);
      {error, _} -> gen_tcp:close(Socket)
    end
  end,
  Accept = fun Accept() ->
    {ok, Socket} = gen_tcp:accept(Listen),
    Server = spawn(fun() -> receive go -> Serve(Socket) end end),
    ok = gen_tcp:controlling_process(Socket, Server),
    Server ! go,
    Accept()
  end,
  Accept()
end).
`

const settings = (port: number): string => `
listeners.tcp.1 = 127.0.0.1:${port}
loopback_users = none
log.console = false
log.file.level = warning
vm_memory_high_watermark.absolute = 512MB
disk_free_limit.absolute = 50MB
`

// Two cores at most and no busy waiting, for the sake of what is tested. Quorum queues tell their unacked count at the
// pace of their tick: 200 ms, not five seconds.
const machineSettings = "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none " +
  "-kernel inet_dist_use_interface {127,0,0,1} -rabbit quorum_tick_interval 200"

const ended = (child: ChildProcess): boolean => child.exitCode !== null || child.signalCode !== null

const awaitEnd = (child: ChildProcess): Promise<void> =>
  new Promise((resolve) => (ended(child) ? resolve() : child.once("exit", () => resolve())))

// setpriv --pdeathsig: the kernel sends KILL when our process is gone. Its pid becomes the program's own.
const startBound = (program: string, args: ReadonlyArray<string>, env: NodeJS.ProcessEnv): ChildProcess =>
  spawn("setpriv", ["--pdeathsig", "KILL", program, ...args], { env, stdio: "ignore" })

/** See the head of the file. `kill` and `start` keep the data, as a power cut would; `dispose` ends it for good. */
export class BrokerProcess {
  readonly port: number
  private readonly folder: string
  private readonly env: NodeJS.ProcessEnv
  private readonly epmd: ChildProcess
  private broker: ChildProcess | undefined
  private readonly atExit = (): void => this.dispose()

  private constructor(port: number, folder: string, env: NodeJS.ProcessEnv) {
    this.port = port
    this.folder = folder
    this.env = env
    // Ours and in the foreground, because one that the broker starts would turn daemon and stay behind.
    this.epmd = startBound("epmd", ["-port", String(env["ERL_EPMD_PORT"]), "-address", "127.0.0.1"], env)
    this.epmd.on("error", () => undefined)
    process.once("exit", this.atExit)
  }

  /** A new broker, ready for connections (about 7 s), with the plugins and lines of rabbitmq.conf it is given. Rejects with the end of its log. */
  static async start(options: { readonly plugins?: string; readonly settings?: string } = {}): Promise<BrokerProcess> {
    const [port, distribution, epmd] = [await freePort(), await freePort(), await freePort()]
    const folder = mkdtempSync(join(tmpdir(), "stoker-broker-"))
    for (const name of ["home", "data", "log", "generated"]) mkdirSync(join(folder, name))
    writeFileSync(join(folder, "rabbitmq.conf"), settings(port) + (options.settings ?? ""))
    writeFileSync(join(folder, "plugins"), `[${options.plugins ?? ""}].\n`)
    writeFileSync(join(folder, "control.erl"), controlScript(join(folder, "control")))
    const broker = new BrokerProcess(port, folder, {
      PATH: process.env["PATH"],
      LANG: "C.UTF-8",
      HOME: join(folder, "home"),
      // Makes the script exec the virtual machine, so that the child we hold is the broker itself.
      RUNNING_UNDER_SYSTEMD: "1",
      RABBITMQ_NODENAME: `stoker${port}@localhost`,
      RABBITMQ_NODE_PORT: String(port),
      RABBITMQ_NODE_IP_ADDRESS: "127.0.0.1",
      RABBITMQ_DIST_PORT: String(distribution),
      ERL_EPMD_PORT: String(epmd),
      ERL_EPMD_ADDRESS: "127.0.0.1",
      RABBITMQ_MNESIA_BASE: join(folder, "data"),
      RABBITMQ_LOG_BASE: join(folder, "log"),
      RABBITMQ_CONFIG_FILE: join(folder, "rabbitmq"),
      // Not the machine's own /etc/rabbitmq either.
      RABBITMQ_ADVANCED_CONFIG_FILE: join(folder, "none.config"),
      RABBITMQ_CONFIG_FILES: join(folder, "none"),
      RABBITMQ_ENABLED_PLUGINS_FILE: join(folder, "plugins"),
      RABBITMQ_GENERATED_CONFIG_DIR: join(folder, "generated"),
      RABBITMQ_CONF_ENV_FILE: "/dev/null",
      RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: `${machineSettings} -eval file:script("${join(folder, "control.erl")}")`
    })
    try {
      await broker.start()
    } catch (error) {
      broker.dispose()
      throw error
    }
    return broker
  }

  /** Starts it again on its data (about 6 s); at once when it runs. Resolves when it takes connections. */
  async start(): Promise<void> {
    if (this.broker !== undefined && !ended(this.broker)) return
    const child = startBound(server, [], this.env)
    this.broker = child
    let spawnError: Error | undefined
    child.on("error", (error) => (spawnError = error))
    const deadline = performance.now() + startLimitMillis
    while (performance.now() < deadline) {
      if (spawnError !== undefined) {
        throw new Error(`cannot start ${server}: is scripts/setup done?`, { cause: spawnError })
      }
      if (ended(child)) throw new Error(`the broker ended while it started\n${this.logTail()}`)
      const up = await this.eval("rabbit:is_running().").catch(() => "not yet")
      if (up === "true") return
      await pause(50)
    }
    throw new Error(`the broker took no connection within ${startLimitMillis / 1000} s\n${this.logTail()}`)
  }

  /** As a power cut: SIGKILL, resolved when it is gone. Confirmed messages of durable queues survive a `start`. */
  async kill(): Promise<void> {
    const child = this.broker
    if (child === undefined) return
    child.kill("SIGKILL")
    await awaitEnd(child)
  }

  /** `kill`, then `start` with nothing of what it had: what is left when its disk is lost. */
  async startEmpty(): Promise<void> {
    await this.kill()
    rmSync(join(this.folder, "data"), { recursive: true, force: true })
    mkdirSync(join(this.folder, "data"))
    await this.start()
  }

  /** Stops or continues it with its sockets open: what a broker is like that hangs. */
  signal(signal: "SIGSTOP" | "SIGCONT"): void {
    this.broker?.kill(signal)
  }

  /** Evaluates Erlang expressions in the broker ("rabbit_alarm:get_alarms()."); a binary comes back as its text. */
  eval(source: string): Promise<string> {
    return new Promise((resolve, reject) => {
      const socket = connect(join(this.folder, "control"))
      const chunks: Array<Buffer> = []
      socket.setTimeout(evalLimitMillis, () => socket.destroy(new Error(`the broker did not answer: ${source}`)))
      socket.on("error", reject)
      socket.on("close", () => reject(new Error(`the broker hung up on: ${source}`)))
      socket.on("data", (chunk) => {
        chunks.push(chunk)
        const answer = Buffer.concat(chunks)
        if (answer.length < 4 || answer.length < 4 + answer.readUInt32BE(0)) return
        const text = answer.toString("utf8", 5)
        if (answer[4] === 0) resolve(text)
        else reject(new Error(`the broker refused: ${text}\nin: ${source}`))
        socket.destroy()
      })
      const bytes = Buffer.from(source, "utf8")
      const length = Buffer.alloc(4)
      length.writeUInt32BE(bytes.length)
      socket.write(Buffer.concat([length, bytes]))
    })
  }

  /** Ends it and its epmd at once and removes all it wrote. For every exit of this process, so it waits for nothing. */
  dispose(): void {
    process.removeListener("exit", this.atExit)
    this.broker?.kill("SIGKILL")
    this.epmd.kill("SIGKILL")
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 })
  }

  private logTail(): string {
    try {
      return readFileSync(join(this.folder, "log", `stoker${this.port}@localhost.log`), "utf8").slice(-4_000)
    } catch {
      return "(it wrote no log)"
    }
  }
}
