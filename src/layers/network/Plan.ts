/** How a class's sandboxes get their network: by whose configuration, and which nameservers. */
import { Effect } from "effect"
import { readFileSync } from "node:fs"
import { networkInterfaces } from "node:os"
import { isWithin, parseNetwork } from "../../schemas/IpNetwork.ts"
import type { SandboxClass } from "../../schemas/SandboxClass.ts"
import { builtIn, findNetwork, type NetworkList, USUAL_SUBNET } from "./CniConfig.ts"
import { isReachable, nameserversOf } from "./Nameservers.ts"
import { NetworkError } from "./Network.ts"
import { conflictOf, readRoutes } from "./Routes.ts"

export interface Places {
  /** Folders with network configurations. */
  readonly configurations: ReadonlyArray<string>
  /** Folders with plugins. */
  readonly plugins: ReadonlyArray<string>
  /** Where the built-in network keeps its leases: for the whole host, so that its workers share the subnet. */
  readonly leases: string
  /** The host's own nameservers: those of the first of these files that names any which sandboxes can reach. */
  readonly resolvConf: ReadonlyArray<string>
}

/** `none` is no network, and `host` is for drivers that isolate nothing. */
export const wanted = ({ name, network }: SandboxClass) =>
  network === "none" || network === "host"
    ? Effect.fail(
      new NetworkError({
        reason: `class ${name} has network ${network}, which is none of a sandbox's own`,
        remedy: "Use internet or {allow}."
      })
    )
    : Effect.succeed(network)

/** Whose configuration it is; the built-in one only if its subnet is in nobody's way. */
export const networkList = Effect.fnUntraced(function*(places: Places, { networkSetup = {} }: SandboxClass) {
  const { cni, subnet = USUAL_SUBNET } = networkSetup
  if (cni !== undefined) return yield* findNetwork(places.configurations, cni)
  const list: NetworkList = builtIn({ subnet, dataDir: places.leases })
  const network = parseNetwork(subnet)
  const conflict = network === undefined ? "it is none" : conflictOf(
    yield* Effect.try({
      try: readRoutes,
      catch: (cause) =>
        new NetworkError({ reason: "the host's routes cannot be read", remedy: "Is /proc mounted?", cause })
    }),
    network
  )
  if (conflict !== undefined) {
    return yield* new NetworkError({
      reason: `the host has a route into the sandboxes' subnet ${subnet}: ${conflict}`,
      remedy: "Give the class a subnet that nothing else uses (networkSetup.subnet)."
    })
  }
  return list
})

/**
 * Addresses of all the host's interfaces that are up, without those of one link only: each sandbox brings one of them, and
 * none is reached from an address that a sandbox may send from.
 */
export const addressesOfHost = (): ReadonlySet<string> =>
  new Set(
    Object.values(networkInterfaces()).flatMap((found) => (found ?? []).map(({ address }) => address))
      .filter((address) => !isWithin(linkLocal, address))
  )

const linkLocal = ["fe80::/10"].flatMap((text) => parseNetwork(text) ?? [])

const nameserversIn = (path: string) => {
  try {
    return nameserversOf(readFileSync(path, "utf8"))
  } catch {
    return []
  }
}

/**
 * The class's, else those of the network's configuration that sandboxes reach, else for `internet` the host's. A class that lists what it
 * allows asks nobody it has not listed: names can carry data out.
 */
export const nameservers = Effect.fnUntraced(
  function*(places: Places, { network, networkSetup = {} }: SandboxClass, ofNetwork: ReadonlyArray<string>) {
    const isOk = isReachable(addressesOfHost())
    const unreachable = networkSetup.nameservers?.find((address) => !isOk(address))
    if (unreachable !== undefined) {
      return yield* new NetworkError({
        reason: `nameserver ${unreachable} is an address of the host, which no sandbox reaches`,
        remedy: "Name one that is somewhere else (networkSetup.nameservers)."
      })
    }
    // A plugin that reads the host's resolv.conf finds those of its loopback there.
    const named = networkSetup.nameservers ?? ofNetwork.filter(isOk)
    if (named.length > 0 || network !== "internet") return named.slice(0, 3)
    const ofHost = places.resolvConf.map((path) => nameserversIn(path).filter(isOk))
    return (ofHost.find((found) => found.length > 0) ?? []).slice(0, 3)
  }
)
