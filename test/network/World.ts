/**
 * A small world: the network namespace the tests run in is the host, a second one is the internet, connected by a veth.
 * Only where scripts/test has put us into a namespace of our own: on a machine's own network nothing is touched.
 */
import { ConfigProvider, Effect, Layer, Schema, Stream } from "effect"
import { type ChildProcess, execFileSync, spawn } from "node:child_process"
import { once } from "node:events"
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { networkInterfaces, tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { Drivers, type Sandbox } from "../../src/layers/sandbox/Sandbox.ts"
import { baseEnv } from "../../src/schemas/Program.ts"
import type { NetworkPolicy, NetworkSetup, SandboxClass } from "../../src/schemas/SandboxClass.ts"
import { standardClass } from "../../src/schemas/WorkerConfig.ts"
import { layerDrivers } from "../../src/wiring.ts"
import { patience } from "../support/Slowness.ts"

/** The host's side and the other side of its uplink. */
export const HOST = "45.33.0.2"
const UPLINK = "45.33.0.1"
/** The host's, in tests that add it. */
export const HOST_LATE = "45.33.0.77"
/** Of the host as well, on no interface that sandboxes are behind. */
export const HOST_PRIVATE = "10.9.9.9"

export const PUBLIC = "93.184.216.34"
export const OTHER_PUBLIC = "8.8.4.4"
export const METADATA = "169.254.169.254"
export const PRIVATE = ["10.1.2.3", "172.16.9.9", "192.168.5.5", "100.64.1.1", METADATA, "198.18.7.7"] as const
export const NAMESERVER = "10.1.2.53"
export const IPV6 = "2600:1::5"
export const PRIVATE6 = "fd99::5"
export const HOST6_LATE = "2600:2::77"
export const HOST6 = "2600:2::2"
const UPLINK6 = "2600:2::1"

export const sh = (program: string, ...args: ReadonlyArray<string>): string =>
  execFileSync(program, args, { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] })

export type Probe = readonly [kind: "tcp" | "udp", address: string, port: number, seconds: number]

/** How long another test may have its world, in milliseconds. */
export const TURN = patience(900_000)

/** Names who has a world. The folder is this run's. */
const turn = join(tmpdir(), "stoker-world")

const ownerOfTurn = () => {
  try {
    return readFileSync(turn, "utf8")
  } catch {
    return ""
  }
}

const takeTurn = () => {
  try {
    writeFileSync(turn, String(process.pid), { flag: "wx" })
    return true
  } catch {
    const owner = ownerOfTurn()
    // Killed before it could let go.
    if (owner !== "" && !existsSync(`/proc/${owner}`)) rmSync(turn, { force: true })
    return false
  }
}

/** Ends with us, however we end. */
const bound = ["setpriv", "--pdeathsig", "KILL"]

export class World {
  private readonly children: Array<ChildProcess> = []

  /** One after the other: all that run at once share a network. `beforeAll` has to wait for `TURN` then. */
  static async make(): Promise<World> {
    const began = performance.now()
    while (!takeTurn()) {
      if (performance.now() - began > TURN) throw new Error(`process ${ownerOfTurn()} does not let go of ${turn}`)
      await sleep(200)
    }
    try {
      return await World.makeAlone()
    } catch (error) {
      rmSync(turn)
      throw error
    }
  }

  private static async makeAlone(): Promise<World> {
    const found = Object.keys(networkInterfaces()).filter((name) => name !== "lo")
    if (found.length > 0) throw new Error(`this is somebody's network (${found.join(", ")}): run npm test`)
    const world = new World()
    await world.build()
    return world
  }

  private async build(): Promise<void> {
    // Its namespace has no name, so that nothing is left of a run that is killed.
    const holder = await this.start("unshare", "--net", "sh", "-c", "echo up; exec sleep 100000")
    const internet = ["nsenter", `--net=/proc/${holder}/ns/net`]
    const there = (...args: ReadonlyArray<string>) => sh("nsenter", `--net=/proc/${holder}/ns/net`, "ip", ...args)
    sh("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "eth0", "netns", String(holder))
    sh("ip", "addr", "add", `${HOST}/24`, "dev", "uplink")
    sh("ip", "addr", "add", `${HOST_PRIVATE}/32`, "dev", "lo")
    sh("ip", "link", "set", "uplink", "up")
    sh("ip", "route", "add", "default", "via", UPLINK)
    sh("ip", "addr", "add", `${HOST6}/64`, "dev", "uplink", "nodad")
    sh("ip", "-6", "route", "add", "default", "via", UPLINK6)
    for (const device of ["lo", "eth0"]) there("link", "set", device, "up")
    there("addr", "add", `${UPLINK}/24`, "dev", "eth0")
    there("addr", "add", `${UPLINK6}/64`, "dev", "eth0", "nodad")
    for (const address of [IPV6, PRIVATE6]) there("addr", "add", `${address}/128`, "dev", "lo", "nodad")
    const all = [PUBLIC, OTHER_PUBLIC, ...PRIVATE, NAMESERVER]
    for (const address of all) there("addr", "add", `${address}/32`, "dev", "lo")
    const services = all.flatMap((address) => [
      ["tcp", address, 80],
      ["tcp", address, 443],
      ["udp", address, 53],
      ["tcp", address, 53]
    ])
    await this.listen(internet, [
      ...services,
      ["udp", PUBLIC, 123],
      ["tcp", PUBLIC, 8443],
      ["tcp", IPV6, 80],
      ["tcp", PRIVATE6, 80]
    ])
    // The host's own services, on every address it has or will have.
    await this.listen([], [["tcp", "0.0.0.0", 8080], ["udp", "0.0.0.0", 8080], ["tcp", "0.0.0.0", 53], [
      "tcp",
      "::",
      8081
    ]])
  }

  /** Up when it has said something. */
  private async start(...argv: ReadonlyArray<string>): Promise<number> {
    const [program = "", ...args] = [...bound, ...argv]
    const child = spawn(program, args, { stdio: ["ignore", "pipe", "inherit"] })
    this.children.push(child)
    await once(child.stdout, "data")
    return child.pid ?? 0
  }

  private listen(prefix: ReadonlyArray<string>, plan: ReadonlyArray<ReadonlyArray<string | number>>) {
    return this.start(...prefix, "python3", join(import.meta.dirname, "listen.py"), JSON.stringify(plan))
  }

  async end(): Promise<void> {
    sh("ip", "link", "del", "uplink")
    sh("ip", "addr", "del", `${HOST_PRIVATE}/32`, "dev", "lo")
    for (const child of this.children) {
      if (child.exitCode !== null || child.signalCode !== null) continue
      const gone = once(child, "exit")
      child.kill("SIGKILL")
      await gone
    }
    rmSync(turn)
  }
}

/** Where tests keep leases and configurations, and what tells the worker so. */
export const places = (state: string) => {
  const [leases, configurations, resolv] = ["leases", "cni", "resolv.conf"].map((name) => join(state, "net", name))
  mkdirSync(configurations ?? "", { recursive: true })
  writeFileSync(resolv ?? "", `nameserver 127.0.0.53\nnameserver ${NAMESERVER}\n`)
  return {
    leases: leases ?? "",
    configurations: configurations ?? "",
    env: {
      STOKER_CNI_LEASES: leases ?? "",
      STOKER_CNI_CONFIG: configurations ?? "",
      STOKER_RESOLV_CONF: resolv ?? ""
    }
  }
}

const names = (path: string): ReadonlyArray<string> => {
  try {
    return readdirSync(path)
  } catch {
    return []
  }
}

/** Leases that are taken, below host-local's directory. */
export const leases = (path: string): ReadonlyArray<string> =>
  names(path).flatMap((network) => names(join(path, network))).filter((name) => /^\d+\.\d+\.\d+\.\d+$/.test(name))

/** Rows of a state directory: they name namespaces and tables. */
export const rows = (state: string): ReadonlyArray<string> => names(join(state, "ledger"))

/** What the host has for sandboxes, anybody's. */
export const traces = () => ({
  veths: sh("ip", "-br", "link").split("\n").filter((line) => line.startsWith("veth")),
  tables: sh("nft", "list", "tables").split("\n").filter((line) => line.includes("stoker"))
})

/** Chains that CNI plugins have made in iptables. */
export const chains = (): ReadonlyArray<string> =>
  sh("iptables-save", "-t", "nat").split("\n").filter((line) => line.startsWith(":CNI-"))

/** What the host has of rows with these ids: names of namespaces are the whole machine's, others' stand there as well. */
export const held = (leaseFolder: string, ids: ReadonlyArray<string>) => ({
  ...traces(),
  netns: names("/run/netns").filter((name) => ids.includes(name.replace("stoker-", ""))),
  leases: leases(leaseFolder)
})

/** Processes of this machine with that argument. */
export const running = (argument: string): ReadonlyArray<string> =>
  readdirSync("/proc").filter((pid) => {
    try {
      return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0").includes(argument)
    } catch {
      return false // it has just ended
    }
  })

export const nothing = { netns: [], veths: [], tables: [], leases: [] }

export const networked = (network: NetworkPolicy, networkSetup?: NetworkSetup): SandboxClass => ({
  ...standardClass("net", "oci"),
  network,
  ...(networkSetup === undefined ? {} : { networkSetup })
})

export const layer = (state: string, env: Readonly<Record<string, string>> = {}) =>
  Layer.fresh(layerDrivers(state, ["oci"])).pipe(
    Layer.provide(
      ConfigProvider.layer(
        ConfigProvider.fromEnvRecord({ PATH: process.env["PATH"] ?? "", ...places(state).env, ...env })
      )
    )
  )

export const provision = (sandboxClass: SandboxClass) =>
  Effect.gen(function*() {
    const [driver] = yield* Drivers
    if (driver === undefined) return yield* Effect.die("no driver")
    return yield* driver.provision(sandboxClass, { bytes: 16 * 1024 ** 2, inodes: 1024 })
  })

/** Runs a program in the sandbox; what it said on both streams, and its exit. */
export const exec = Effect.fnUntraced(function*(sandbox: Sandbox, ...argv: ReadonlyArray<string>) {
  const [first = "true", ...rest] = argv
  const events = yield* Stream.runCollect(sandbox.run({
    name: "run",
    argv: [first, ...rest],
    env: baseEnv,
    stdin: new Uint8Array(),
    limits: standardClass("net", "oci").defaults
  }))
  const said = (stream: "stdout" | "stderr") =>
    Buffer.concat(events.flatMap((event) => event._tag === "Output" && event.stream === stream ? [event.bytes] : []))
      .toString()
  const last = events.at(-1)
  return { stdout: said("stdout"), stderr: said("stderr"), exit: last?._tag === "Ended" ? last.exit : undefined }
})

const ownAddress =
  "import socket\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\ns.connect(('1.1.1.1',9))\nprint(s.getsockname()[0],end='')"

/** The address a sandbox has, as it sees it. A job has no netlink, so it asks which one it would send from. */
export const addressOf = (sandbox: Sandbox) =>
  Effect.map(exec(sandbox, "python3", "-c", ownAddress), ({ stdout }) => stdout)

/** A job that waits six seconds for somebody at port 7000: `reached` or `alone`. */
export const listener =
  "import socket\ns=socket.create_server(('0.0.0.0',7000))\ns.settimeout(6)\nprint('up',flush=True)\ntry:\n s.accept();print('reached')\nexcept TimeoutError: print('alone')"

const probeSource = readFileSync(join(import.meta.dirname, "probe.py"), "utf8")
const answers = Schema.decodeUnknownSync(Schema.fromJsonString(Schema.Array(Schema.String)))

/** What came of each attempt, from inside the sandbox. */
export const probe = Effect.fnUntraced(function*(sandbox: Sandbox, ...probes: ReadonlyArray<Probe>) {
  const { stderr, stdout } = yield* exec(sandbox, "python3", "-c", probeSource, JSON.stringify(probes))
  return stdout === "" ? [stderr] : answers(stdout)
})
