/**
 * Networks of sandboxes on this host: a named network namespace for each, made by `ip`, connected by CNI plugins, and
 * closed by rules of nftables before anything runs in it.
 */
import { Config, Effect, Semaphore } from "effect"
import { existsSync, statSync } from "node:fs"
import type { InstanceId, SandboxId } from "../../schemas/Ids.ts"
import { type IpNetwork, networkText, parseNetwork } from "../../schemas/IpNetwork.ts"
import type { SandboxClass } from "../../schemas/SandboxClass.ts"
import { TAP } from "../microvm/Vmm.ts"
import * as Cni from "./Cni.ts"
import { type NetworkList, pluginsOf, withoutTap } from "./CniConfig.ts"
import { addressesOf, missingGatewayOf, nameserversIn } from "./CniResult.ts"
import { hostRules, noHostRules, type Subnet } from "./HostRules.ts"
import { machineRules, tapAndRules, tapBatch, type TapOwner } from "./MachineRules.ts"
import { sweep } from "./Masquerade.ts"
import { resolvConfOf } from "./Nameservers.ts"
import { type Attachment, NetworkError, type SandboxNetwork } from "./Network.ts"
import { checkClass, checkMachine } from "./NetworkCheck.ts"
import * as Plan from "./Plan.ts"
import { sandboxRules } from "./Policy.ts"
import * as Record from "./Record.ts"
import { makeRunner, requireTool, type ToolRun } from "./Tools.ts"

/** Each program has so long. They take milliseconds. */
const LIMIT_MILLIS = 10_000

/** Where `ip netns` keeps names. */
const NAMES = "/run/netns"

/** The namespace of a row; also the name of a worker's table. */
export const nameOf = (id: SandboxId) => `stoker-${id}`

const namespaceOf = (id: SandboxId) => `${NAMES}/${nameOf(id)}`

/** A namespace, then the program that works in it. */
const ADD_AND_GO_ON = `"$1" netns add "$2" && shift 2 && exec "$@"`

/** A row of this worker's and a cgroup that dies with it: the home of the programs that make networks. */
export interface Shelter {
  readonly id: SandboxId
  readonly procsFiles: ReadonlyArray<string>
}

export interface NetworkOptions {
  readonly instance: InstanceId
  readonly instanceDirectory: (instance: InstanceId) => string
  /** The launcher program. */
  readonly launch: string
  /** Given again and again: the same one until the worker ends. Its row's release removes the worker's rules. */
  readonly shelter: Effect.Effect<Shelter, { readonly reason: string; readonly remedy: string }>
  /** Kills all that is left in the shelter of another, dead instance. */
  readonly kill: (instance: InstanceId, id: SandboxId) => Effect.Effect<void, { readonly message: string }>
  readonly limitMillis?: number
}

const pathList = (name: string, usual: string) =>
  Config.String(name).pipe(
    Config.withDefault(usual),
    Config.map((text) => text.split(":").filter((folder) => folder.startsWith("/")))
  )

/** The usual places, or where STOKER_CNI_PATH, STOKER_CNI_CONFIG, STOKER_CNI_LEASES and
 * STOKER_RESOLV_CONF lead. */
export const places: Config.Config<Plan.Places> = Config.all({
  configurations: pathList("STOKER_CNI_CONFIG", "/etc/cni/net.d:/etc/cni/conf.d"),
  plugins: pathList("STOKER_CNI_PATH", "/usr/lib/cni:/opt/cni/bin"),
  leases: Config.String("STOKER_CNI_LEASES").pipe(Config.withDefault("/run/stoker/cni")),
  // Where systemd-resolved listens on the loopback, its own list of servers is the second file.
  resolvConf: pathList("STOKER_RESOLV_CONF", "/etc/resolv.conf:/run/systemd/resolve/resolv.conf")
})

const networksOf = (texts: ReadonlyArray<string>): ReadonlyArray<IpNetwork> =>
  texts.flatMap((text) => parseNetwork(text) ?? [])

/** An address as plugins write it, with the prefix of its subnet: the address alone. */
const addressOf = (text: string) => text.split("/")[0] ?? ""

export const make = Effect.fn("NetworkHost.make")(function*(options: NetworkOptions) {
  const where = yield* places
  const path = yield* Config.String("PATH").pipe(Config.withDefault(""))
  const limitMillis = options.limitMillis ?? LIMIT_MILLIS
  const runIn = makeRunner({ launch: options.launch, limitMillis })
  const subnets = new Map<string, Subnet>()
  const turn = Semaphore.makeUnsafe(1)

  const shelter = Effect.mapError(
    options.shelter,
    ({ reason, remedy }) => new NetworkError({ reason: `no place for network programs: ${reason}`, remedy })
  )
  const programs = Effect.all({
    ip: requireTool(path, "ip"),
    nft: requireTool(path, "nft"),
    nsenter: requireTool(path, "nsenter")
  })
  const run = (tool: ToolRun) => Effect.flatMap(shelter, ({ procsFiles }) => runIn(procsFiles, tool))

  const expect = Effect.fnUntraced(function*(what: string, tool: ToolRun) {
    const { code, stderr } = yield* run(tool)
    if (code === 0) return
    return yield* new NetworkError({
      reason: `${what}: ${stderr.trim().slice(-2000) || `status ${code}`}`,
      remedy: "Does the worker run as root, and does this kernel have nftables and network namespaces?"
    })
  })

  const recordOf = (instance: InstanceId, id: SandboxId) => Record.pathOf(options.instanceDirectory(instance), id)

  /**
   * This worker's table, with all subnets it has seen. Put there anew for each sandbox: whoever reloads the host's
   * firewall may have removed it, and the next job is not to run without.
   */
  const guardHost = (seen: ReadonlyArray<Subnet>) =>
    Effect.gen(function*() {
      const { id } = yield* shelter
      const record = recordOf(options.instance, id)
      const table = nameOf(id)
      if (!Record.exists(record)) yield* Record.write(record, { _tag: "Host", table })
      for (const subnet of seen) subnets.set(networkText(subnet.network), subnet)
      const nft = yield* requireTool(path, "nft")
      yield* expect("the host's rules", { argv: [nft, "-f", "-"], stdin: hostRules(table, [...subnets.values()]) })
    }).pipe(Effect.retry({ times: 2 }), Semaphore.withPermits(turn, 1)) // another worker's transaction may come between

  /** The namespace's loopback, and its rules: one program that becomes the other. */
  const close = Effect.fnUntraced(function*(netns: string, rules: string) {
    const { ip, nft, nsenter } = yield* programs
    const script = `"$1" link set lo up && exec "$2" -f -`
    yield* expect("the sandbox's rules", {
      argv: [nsenter, `--net=${netns}`, "/bin/sh", "-c", script, "sh", ip, nft],
      stdin: rules
    })
  })

  /** Nothing of this row is there, the record of what comes is written. */
  const begin = Effect.fnUntraced(function*(id: SandboxId, list: NetworkList | undefined, tap: boolean) {
    yield* programs
    // Before anything is begun, because what began with a plugin ends with it.
    if (list !== undefined) { for (const type of pluginsOf(list)) yield* Cni.pluginFile(where.plugins, type) }
    const { id: tools } = yield* shelter
    const record = recordOf(options.instance, id)
    const begun: Extract<Record.NetworkRecord, { _tag: "Sandbox" }> = {
      _tag: "Sandbox",
      tools,
      folders: where.plugins,
      ...(list === undefined ? {} : { list }),
      ...(tap ? { tap } : {})
    }
    // A namespace of this name is this row's, whoever lost the record of it.
    if (!Record.exists(record) && existsSync(namespaceOf(id))) yield* Record.write(record, begun)
    if (Record.exists(record)) yield* release(options.instance, id)
    yield* Record.write(record, begun)
    return begun
  })

  /** A namespace that CNI has connected, and what it has there. */
  const connect = Effect.fnUntraced(function*(
    id: SandboxId,
    sandboxClass: SandboxClass,
    begun: Extract<Record.NetworkRecord, { _tag: "Sandbox" }>,
    list: NetworkList
  ) {
    const { ip } = yield* programs
    const target: Cni.CniTarget = { list, containerId: id, netns: namespaceOf(id), folders: where.plugins }
    yield* Effect.all([
      expect(`network namespace ${nameOf(id)}`, { argv: [ip, "netns", "add", nameOf(id)] }),
      // What an attachment of this name may have left would be in ADD's way. Nearly never is there anything.
      Effect.ignore(Cni.del(run, target, undefined))
    ], { concurrency: 2 })
    const result = yield* Cni.add(run, target)
    yield* Record.write(recordOf(options.instance, id), { ...begun, result })
    const addresses = addressesOf(result)
    const own = networksOf(addresses.map(addressOf))
    if (own.length === 0) {
      return yield* new NetworkError({
        reason: `CNI network ${list.name} gave the sandbox no address`,
        remedy: "Give its configuration an ipam part."
      })
    }
    const masquerade = list.stoker?.masquerade === true
    return {
      result,
      own,
      nameservers: yield* Plan.nameservers(where, sandboxClass, nameserversIn(result)),
      guard: guardHost(networksOf(addresses).map((network) => ({ network, masquerade })))
    }
  })

  const attached = (id: SandboxId, nameservers: ReadonlyArray<string>) =>
    Effect.try({
      try: (): Attachment => ({
        // Through our own root: a runtime's mount namespace, older than the name, does not show it.
        path: `/proc/${process.pid}/root${namespaceOf(id)}`,
        inode: statSync(namespaceOf(id)).ino,
        resolvConf: resolvConfOf(nameservers)
      }),
      catch: (cause) =>
        new NetworkError({
          reason: `${namespaceOf(id)} is gone: ${String(cause)}`,
          remedy: "Who removes namespaces here?",
          cause
        })
    })

  const acquire = Effect.fn("Network.acquire")(function*(id: SandboxId, sandboxClass: SandboxClass) {
    const network = yield* Plan.wanted(sandboxClass)
    const list = yield* Plan.networkList(where, sandboxClass)
    const begun = yield* begin(id, list, false)
    const { guard, nameservers, own } = yield* connect(id, sandboxClass, begun, list)
    const rules = sandboxRules({
      network,
      device: Cni.DEVICE,
      own,
      host: networksOf([...Plan.addressesOfHost()]),
      nameservers: networksOf(nameservers)
    })
    yield* Effect.all([close(namespaceOf(id), rules), guard], { concurrency: 2 })
    return yield* attached(id, nameservers)
  })

  const acquireMachine = Effect.fn("Network.acquireMachine")(function*(
    id: SandboxId,
    sandboxClass: SandboxClass,
    owner: TapOwner
  ) {
    const { ip, nft, nsenter } = yield* programs
    const inside = (script: string, batch: string) =>
      [nsenter, `--net=${namespaceOf(id)}`, "/bin/sh", "-c", script, "sh", ip, nft, batch] as const
    if (sandboxClass.network === "none") {
      yield* begin(id, undefined, true)
      // One program that becomes the next: of a machine's time to be ready this is a part.
      yield* expect(`the machine's network ${nameOf(id)}`, {
        argv: [
          ...["/bin/sh", "-c", ADD_AND_GO_ON, "sh", ip, nameOf(id)] as const,
          ...inside(tapAndRules(`exec "$2" -f -`), tapBatch(owner))
        ],
        stdin: machineRules()
      })
      return { ...(yield* attached(id, [])), hasRoute: false }
    }
    const network = yield* Plan.wanted(sandboxClass)
    const list = yield* withoutTap(yield* Plan.networkList(where, sandboxClass))
    const begun = yield* begin(id, list, true)
    const { guard, nameservers, own, result } = yield* connect(id, sandboxClass, begun, list)
    const address = own.find(({ family }) => family === 4)
    if (address === undefined) {
      return yield* new NetworkError({
        reason: `CNI network ${list.name} gave the machine no IPv4 address`,
        remedy: "Machines speak IPv4: give its ipam part a range of it."
      })
    }
    const usable = nameservers.filter((text) => !text.includes(":"))
    const gateway = missingGatewayOf(result)
    const batch = tapBatch(owner, gateway === undefined ? undefined : { device: Cni.DEVICE, gateway })
    const rules = machineRules({
      network,
      device: Cni.DEVICE,
      address: networkText(address),
      host: networksOf([...Plan.addressesOfHost()]),
      nameservers: networksOf(usable)
    })
    yield* Effect.all([
      expect("the machine's tap and rules", {
        argv: inside(tapAndRules(`"$2" -f - && echo 1 >/proc/sys/net/ipv4/ip_forward`), batch),
        stdin: rules
      }),
      guard
    ], { concurrency: 2 })
    return { ...(yield* attached(id, usable)), hasRoute: true }
  })

  const detach = Effect.fnUntraced(function*(
    instance: InstanceId,
    id: SandboxId,
    { folders: plugins, list, result, tap, tools }: Extract<Record.NetworkRecord, { _tag: "Sandbox" }>
  ) {
    if (instance !== options.instance) {
      yield* Effect.mapError(
        options.kill(instance, tools),
        (cause) => new NetworkError({ reason: cause.message, remedy: "It is tried again.", cause })
      )
    }
    const netns = namespaceOf(id)
    const isThere = existsSync(netns)
    const folders = [...new Set([...plugins, ...where.plugins])]
    const del = (path: string) =>
      list === undefined ? Effect.void : Cni.del(run, { list, containerId: id, netns: path, folders }, result)
    const [first] = yield* Effect.all([
      Effect.result(del(isThere ? netns : "")),
      tap === true && isThere ? removeLink(netns, TAP) : Effect.void
    ], { concurrency: 2 })
    if (first._tag === "Failure" && existsSync(netns)) yield* removeLink(netns, Cni.DEVICE)
    if (existsSync(netns)) {
      const { ip } = yield* programs
      yield* expect(`removing network namespace ${nameOf(id)}`, { argv: [ip, "netns", "del", nameOf(id)] })
    }
    if (first._tag === "Failure") {
      // Half of an ADD can be in a plugin's way. With the namespace its links are gone; the address is what remains.
      if (isThere) yield* Effect.logDebug(`network of sandbox ${id}: ${first.failure.message}`)
      yield* del("")
    }
    if (list !== undefined) yield* sweep(run, list, id)
  })

  /**
   * It goes with its namespace, unless somebody holds that who should not: any mount namespace of others that was made in the
   * meantime may. Often it is not there yet, or not any more.
   */
  const removeLink = Effect.fnUntraced(function*(netns: string, device: string) {
    const { ip, nsenter } = yield* programs
    yield* Effect.retry(run({ argv: [nsenter, `--net=${netns}`, ip, "link", "del", device] }), { times: 1 })
  })

  const release = Effect.fn("Network.release")(function*(instance: InstanceId, id: SandboxId) {
    const file = recordOf(instance, id)
    if (!Record.exists(file)) return
    const record = yield* Record.read(file)
    if (record._tag === "Host") {
      const nft = yield* requireTool(path, "nft")
      yield* expect(`removing the host's table ${record.table}`, {
        argv: [nft, "-f", "-"],
        stdin: noHostRules(record.table)
      })
    } else {
      yield* detach(instance, id, record)
    }
    yield* Record.remove(file)
  })

  const surroundings = { path, places: where, run: (tool: ToolRun) => runIn([], tool) }
  const network: SandboxNetwork = {
    acquire,
    acquireMachine,
    isHeld: (instance, id) => Record.exists(recordOf(instance, id)),
    release,
    check: (sandboxClass) => checkClass(surroundings, sandboxClass),
    checkMachine: (sandboxClass) => checkMachine(surroundings, sandboxClass)
  }
  return network
})
